"""BEV proposals and perspective supervision: where their targets lie, and what comes out when they are met."""

import pytest
import torch
from mmdet3d.registry import MODELS
from mmdet3d.structures import LiDARInstance3DBoxes
from mmengine.registry import DefaultScope

from bevformer_plugin.geometry import BEVGrid, normalize_boxes
from bevformer_plugin.models import BEVProposals
from bevformer_plugin.models.heads.bev_proposals import ProposedQueries
from bevformer_plugin.models.heads.center_heatmap import draw_centers, last_in_each_cell
from tests.models.small_detector import batch, detector_config, step

GRID = BEVGrid(8, 10, (-51.2, -38.4, -5.0, 51.2, 38.4, 3.0))
BOX = torch.tensor([[12.0, -20.0, -1.0, 4.6, 1.9, 1.7, 0.3, 3.0, -1.0]])  # centre z
CODE_WEIGHTS = [1.0] * 8 + [0.2] * 2
PROPOSALS = dict(
    type='BEVProposals',
    num_query=12,
    loss_heatmap=dict(type='mmdet.GaussianFocalLoss'),
    loss_bbox=dict(type='mmdet.L1Loss'),
    code_weights=CODE_WEIGHTS,
)


def scored(proposals: BEVProposals, heatmap: torch.Tensor, boxes: torch.Tensor) -> ProposedQueries:
    """Queries of cells that are scored so."""
    return proposals.strongest(torch.zeros(len(heatmap), 80, 16), heatmap, boxes)


@pytest.fixture
def proposals():
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        return MODELS.build(
            dict(
                type='BEVProposals',
                embed_dims=16,
                num_classes=3,
                grid=GRID,
                num_query=5,
                code_weights=CODE_WEIGHTS,
                loss_heatmap=dict(type='mmdet.GaussianFocalLoss'),
                loss_bbox=dict(type='mmdet.L1Loss'),
            )
        )


def test_a_proposal_at_the_objects_cell_becomes_the_first_query(proposals):
    column, row = int((12 + 51.2) // GRID.cell_x), int((-20 + 38.4) // GRID.cell_y)
    cell = row * GRID.bev_w + column
    heatmap = torch.full((1, 3, 8, 10), -6.0)
    heatmap[0, 2, row, column] = 4.0
    heatmap[0, 2, row, column + 1] = 3.0  # beside the peak: not a peak
    boxes = torch.zeros(1, 80, 10)
    boxes[0, cell] = normalize_boxes(BOX)[0]
    bev_embed = torch.randn(1, 80, 16)
    start = proposals.strongest(bev_embed, heatmap, boxes)
    assert start.content.shape == start.position.shape == (1, 5, 16)
    expected = torch.tensor([(12 + 51.2) / 102.4, (-20 + 38.4) / 76.8, (-1 + 5) / 8])
    torch.testing.assert_close(start.reference_points[0, 0], expected)
    torch.testing.assert_close(start.logits[0, 0], torch.tensor([-6.0, -6.0, 4.0]))
    kept = torch.tensor([0, 0, 1, 1, 0, 1, 1, 1, 1, 1])  # all but the centre, which is the reference point
    torch.testing.assert_close(start.boxes[0, 0], normalize_boxes(BOX)[0] * kept)
    content = proposals.content(bev_embed[0, cell]) + proposals.class_embedding.weight[2]
    torch.testing.assert_close(start.content[0, 0], content)
    assert not (start.reference_points[0, 1:] - expected).abs().sum(-1).lt(1e-3).any()


def test_a_cell_that_two_classes_peak_in_becomes_one_query(proposals):
    heatmap = torch.full((1, 3, 8, 10), -6.0)
    heatmap[0, 1, 4, 5], heatmap[0, 2, 4, 5], heatmap[0, 0, 1, 1] = 3.0, 4.0, 2.0
    boxes = torch.randn(1, 80, 10)
    bev_embed = torch.randn(1, 80, 16)
    start = proposals.strongest(bev_embed, heatmap, boxes)
    first, second, third = start.logits[0, :3]
    torch.testing.assert_close(first, torch.tensor([-6.0, 3.0, 4.0]))
    torch.testing.assert_close(second, torch.tensor([2.0, -6.0, -6.0]))
    torch.testing.assert_close(third, torch.full((3,), -6.0))
    named = [
        proposals.content(bev_embed[0, cell]) + proposals.class_embedding.weight[label]
        for cell, label in ((45, 2), (11, 0))
    ]
    torch.testing.assert_close(start.content[0, :2], torch.stack(named))


def test_true_proposals_have_no_box_loss_and_nearly_no_heatmap_loss(proposals):
    labels, truth = [torch.tensor([1])], [BOX]
    heatmap, boxes, weight = torch.zeros(1, 3, 8, 10), torch.zeros(1, 80, 10), torch.zeros(1, 80, 10)
    proposals._draw(heatmap[0], boxes[0], weight[0], labels[0], truth[0])
    assert heatmap.max() == 1 and (heatmap[0, 1] == 1).sum() == 1 and heatmap[0, [0, 2]].sum() == 0
    met = proposals.loss(scored(proposals, torch.where(heatmap == 1, 9.0, -9.0), boxes), labels, truth)
    assert met['proposal.loss_bbox'] == 0 and met['proposal.loss_heatmap'] < 1e-3
    moved = boxes + torch.tensor([1.0] + [0.0] * 9)
    off = proposals.loss(scored(proposals, torch.full_like(heatmap, -9.0), moved), labels, truth)
    torch.testing.assert_close(off['proposal.loss_bbox'], torch.tensor(1.0))  # one metre, one box
    assert off['proposal.loss_heatmap'] > 5


def test_objects_outside_the_grid_and_empty_frames_cost_no_boxes(proposals):
    outside = BOX.clone()
    outside[0, 0] = 60.0
    losses = proposals.loss(
        proposals(torch.randn(2, 80, 16)), [torch.tensor([0]), torch.zeros(0, dtype=torch.long)], [outside, BOX[:0]]
    )
    assert losses['proposal.loss_bbox'] == 0 and losses['proposal.loss_heatmap'] > 0


def test_perspective_targets_lie_where_the_object_is_seen():
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        aid = MODELS.build(
            dict(
                type='PerspectiveSupervision',
                embed_dims=16,
                grid=GRID,
                num_classes=3,
                loss_heatmap=dict(type='mmdet.GaussianFocalLoss'),
                loss_values=dict(type='mmdet.L1Loss'),
            )
        )
    # One camera looks along +y, the other along -y; focal length 40 px, principal point (48, 32).
    forward = torch.tensor([[40.0, 48, 0, 0], [0, 32, -40, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    backward = torch.tensor([[-40.0, -48, 0, 0], [0, -32, -40, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    boxes = LiDARInstance3DBoxes(torch.tensor([[2.0, 10, -1, 4, 2, 2, 0, 0, 0]]), box_dim=9)  # bottom z -1: centre z 0
    heatmap, values, flags = torch.zeros(2, 3, 8, 12), torch.zeros(2, 8, 12, 6), torch.zeros(2, 8, 12, 1)
    aid._draw(heatmap, values, flags, boxes, torch.tensor([1]), torch.stack([forward, backward]), (64, 96))
    # u = 40 * 2 / 10 + 48 = 56 px = cell 7.0, v = 32 px = cell 4.0.
    assert heatmap[0, 1, 4, 7] == 1 and flags.sum() == 1 and heatmap[1].sum() == 0
    expected = torch.tensor([-0.5, -0.5, *torch.tensor([10.0, 4, 2, 2]).log()])
    torch.testing.assert_close(values[0, 4, 7], expected)


def test_both_aids_train_every_parameter(build_detector, make_sample):
    perspective = dict(
        type='PerspectiveSupervision',
        num_classes=3,
        loss_heatmap=dict(type='mmdet.GaussianFocalLoss'),
        loss_values=dict(type='mmdet.L1Loss'),
    )
    detection = detector_config(head=dict(queries=PROPOSALS))['heads']['detection']
    model = build_detector(heads=dict(detection=detection, perspective=perspective)).train()
    inputs, samples = batch(make_sample(range(2)), make_sample(range(1), 'b'))
    losses = model(inputs, samples, mode='loss')
    assert {
        'proposal.loss_heatmap',
        'proposal.loss_bbox',
        'perspective.loss_heatmap',
        'perspective.loss_values',
    } <= set(losses)
    sum(losses.values()).backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_an_untrained_decoder_leaves_the_proposals_as_they_are(build_detector, make_sample):
    model = build_detector(head=dict(queries=PROPOSALS)).eval()
    inputs, samples = batch(make_sample(range(1)))
    with torch.no_grad():
        encoded, _ = step(model, inputs['imgs'][:, 0], [samples[0].metainfo], [None])
        outputs = model.heads['detection'](encoded.bev_embed)
    start = outputs.queries
    for scores, boxes in zip(outputs.cls_scores, outputs.bbox_preds, strict=True):
        torch.testing.assert_close(scores, start.logits)
        torch.testing.assert_close(boxes[..., 5:], start.boxes[..., 5:])
        low, high = torch.tensor(model.bev_encoder.grid.point_cloud_range).split(3)
        torch.testing.assert_close(
            boxes[..., [0, 1, 4]], start.reference_points * (high - low) + low, atol=2e-3, rtol=0
        )  # a point on the range's edge is pulled in by the logit's eps


def test_overlapping_gaussians_keep_the_larger_and_end_at_their_radius():
    heatmaps = torch.zeros(2, 5, 7)
    draw_centers(heatmaps, torch.tensor([1, 1]), torch.tensor([[2, 2], [4, 2]]), torch.tensor([2.0, 1.0]))
    assert heatmaps[0].sum() == 0 and heatmaps[1, 2, 2] == heatmaps[1, 2, 4] == 1
    wide, narrow = 5 / 6, 3 / 6
    expected = max(torch.exp(torch.tensor(-0.5 / wide**2)), torch.exp(torch.tensor(-0.5 / narrow**2)))
    torch.testing.assert_close(heatmaps[1, 2, 3], expected)
    torch.testing.assert_close(heatmaps[1, 0, 1], torch.exp(torch.tensor(-(4 + 1) / 2 / wide**2)))
    assert heatmaps[1, 2, 6] == 0 and heatmaps[1, 0, 5] == 0 and heatmaps[1, 1, 5] > 0


def test_of_objects_in_one_cell_the_last_is_described():
    assert last_in_each_cell(torch.tensor([3, 1, 3, 2, 1])).tolist() == [False, False, True, True, True]
    assert last_in_each_cell(torch.zeros(0, dtype=torch.int64)).tolist() == []
