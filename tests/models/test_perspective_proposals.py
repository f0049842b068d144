"""The two stages that the paper of BEVFormerV2 describes: objects of the perspective head become object queries."""

import math
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from mmdet3d.structures import LiDARInstance3DBoxes
from scipy.spatial.transform import Rotation

from bevformer_plugin.datasets import SceneStreamSampler
from bevformer_plugin.datasets.transforms.bev_augmentation import bev_matrix, move_boxes
from bevformer_plugin.datasets.transforms.image_augmentation import mirrored_projection
from bevformer_plugin.errors import InputError
from bevformer_plugin.geometry import BEVGrid, split_projection, transform_boxes
from bevformer_plugin.models import Frame
from bevformer_plugin.models.bev import ProposalLimits, Proposals
from bevformer_plugin.models.heads import PerspectiveProposals
from bevformer_plugin.models.heads.camera_proposals import propose
from bevformer_plugin.weights.files import training_only
from tests.helpers.module_calls import record_calls
from tests.models.shrunk_configs import assert_same_gradients
from tests.models.test_bevformer_v2 import gradients_of_batch_and_sum
from tests.models.v2_world import batch_of, build, dataset_of, seeded_item, shrunk_config, without_batch_statistics

GRID = BEVGrid(8, 8, (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0))
LIMITS = ProposalLimits(max_num=5, min_score=0.05, max_overlap=0.75)
CANONICAL = torch.tensor([[2.0, 4.0, 1.5], [0.7, 0.7, 1.8]])  # width, length, height
FOCAL, MIDDLE = 400.0, (320.0, 180.0)
POINTS = torch.tensor([[x, y] for y in range(0, 360, 40) for x in range(0, 640, 40)], dtype=torch.float32)
QUERIES = dict(type='PerspectiveProposals', num_proposals=6)


@pytest.fixture(scope='module')
def cfg():
    cfg = shrunk_config('t2', [-3, -1, 0])
    cfg.merge_from_dict({'model.heads.detection.queries': QUERIES})
    return cfg


def camera(yaw: float, place: tuple[float, float, float]) -> np.ndarray:
    """The (4, 4) projection of a camera in the LiDAR frame that looks to ``yaw``, counter-clockwise from x."""
    forward, right = np.array([np.cos(yaw), np.sin(yaw), 0]), np.array([np.sin(yaw), -np.cos(yaw), 0])
    lidar2cam = np.eye(4)
    lidar2cam[:3, :3] = np.stack([right, [0, 0, -1], forward])
    lidar2cam[:3, 3] = -lidar2cam[:3, :3] @ place
    cam2img = np.eye(4)
    cam2img[:2, :3] = [[FOCAL, 0, MIDDLE[0]], [0, FOCAL, MIDDLE[1]]]
    return cam2img @ lidar2cam


def train_item(cfg, root, info_files, index: int = 4, seed: int = 0) -> dict:
    return seeded_item(dataset_of(cfg, 'train', root, info_files['mini_train']), index, seed)


def frame_of(*projections: np.ndarray) -> Frame:
    return Frame('sample', 'scene', 0.0, torch.from_numpy(np.stack(projections)), torch.eye(4), torch.zeros(13))


def predictions_of(frame: Frame, boxes: list[list[float]], scores: list[float], labels: list[int]) -> dict:
    """What a perspective head predicts that sees each (x, y, z, l, w, h, yaw) in each camera whose image shows it."""
    cameras, places = len(frame.lidar2img), len(POINTS)
    maps = {
        'cls': torch.full((cameras, 2, places), -20.0),
        'centerness': torch.full((cameras, 1, places), 20.0),
        'conf': torch.full((cameras, 2, places), 20.0),
        'box2d': torch.full((cameras, 4, places), 15.0),
        'quat': torch.zeros(cameras, 8, places),
        'ctr': torch.zeros(cameras, 4, places),
        'depth': torch.zeros(cameras, 2, places),
        'size': torch.zeros(cameras, 6, places),
    }
    for box, score, label in zip(boxes, scores, labels, strict=True):
        for index, projection in enumerate(frame.lidar2img.numpy()):
            u, v, depth = (projection @ [*box[:3], 1])[:3]
            pixel = np.array([u, v]) / depth
            if depth < 0 or not (0 < pixel[0] < 640 and 0 < pixel[1] < 360):
                continue
            place = int((POINTS - torch.from_numpy(pixel)).norm(dim=1).argmin())
            intrinsics, lidar2cam = (values[index].numpy() for values in split_projection(frame.lidar2img))
            turned = lidar2cam[:3, :3] @ Rotation.from_rotvec([0, 0, box[6]]).as_matrix()
            if np.linalg.det(turned) < 0:
                turned = turned @ np.diag([1.0, -1.0, 1.0])
            forward = np.linalg.inv(intrinsics) @ [*pixel, 1]
            forward /= np.linalg.norm(forward)
            down = np.array([0, 1, 0]) - forward[1] * forward
            down /= np.linalg.norm(down)
            to_ray = np.stack([np.cross(down, forward), down, forward], axis=1)
            x, y, z, w = Rotation.from_matrix(to_ray.T @ turned).as_quat()
            columns = slice(label, None, 2)  # classes run fastest
            maps['cls'][index, label, place] = 2 * math.log(score) - math.log1p(-(score**2))  # logit of its square
            maps['quat'][index, columns, place] = torch.tensor([w, x, y, z], dtype=torch.float32)
            maps['ctr'][index, columns, place] = torch.from_numpy(pixel).float() - POINTS[place]
            maps['depth'][index, label, place] = depth * math.sqrt(2) / FOCAL * 500
            size = torch.tensor(box[3:6])[[1, 0, 2]] / CANONICAL[label] - 1
            maps['size'][index, columns, place] = torch.atanh(size)
    return maps


def proposed(frame: Frame, boxes: list, scores: list[float], labels: list[int], limits=LIMITS) -> Proposals:
    maps = predictions_of(frame, boxes, scores, labels)
    return propose(maps, POINTS, frame, CANONICAL, (0.1, 80.0), GRID, limits)


AHEAD = [1.0, 20.0, -0.5, 4.2, 1.8, 1.6, 0.4]
LEFT = [-15.0, 2.0, 0.2, 0.8, 0.6, 1.7, -2.5]
BEHIND = [3.0, -25.0, 0.1, 3.5, 1.9, 1.4, 3.0]
RIG = (camera(math.pi / 2, (0, 1, -0.3)), camera(math.pi, (-0.5, 0, -0.3)), camera(-math.pi / 2, (0, -1, -0.2)))


def assert_boxes(ours: torch.Tensor, expected: list[list[float]]) -> None:
    wanted = torch.tensor(expected)
    torch.testing.assert_close(ours[:, :6], wanted[:, :6], atol=1e-3, rtol=0)
    turned = torch.remainder(ours[:, 6] - wanted[:, 6] + math.pi, 2 * math.pi) - math.pi
    torch.testing.assert_close(turned, torch.zeros(len(wanted)), atol=1e-3, rtol=0)


@pytest.mark.parametrize('mirrored', [False, True])
def test_objects_come_out_where_they_are_by_falling_score(mirrored):
    rig = [mirrored_projection(one, 640) for one in RIG] if mirrored else RIG
    found = proposed(frame_of(*rig), [AHEAD, LEFT, BEHIND], [0.5, 0.9, 0.7], [0, 1, 0])
    assert found.scores.tolist() == pytest.approx([0.9, 0.7, 0.5], abs=1e-4)
    assert found.labels.tolist() == [1, 0, 0]
    assert_boxes(found.boxes, [LEFT, BEHIND, AHEAD])


def test_objects_move_with_an_augmented_bev():
    matrix = bev_matrix(0.3, 1.05, True, False)
    frame = replace(frame_of(*RIG), bev_augmentation=torch.from_numpy(matrix))
    found = proposed(frame, [AHEAD, LEFT], [0.9, 0.5], [0, 1])
    moved = LiDARInstance3DBoxes(torch.tensor([[*box, 0, 0] for box in (AHEAD, LEFT)]), 9, origin=(0.5, 0.5, 0.5))
    move_boxes(moved, 0.3, 1.05, True, False)
    assert_boxes(found.boxes, torch.cat([moved.gravity_center, moved.tensor[:, 3:7]], dim=1).tolist())


def test_weak_far_and_surplus_objects_are_left_out():
    far = [2.0, 60.0, 0.0, 4.0, 2.0, 1.5, 0.0]
    found = proposed(frame_of(*RIG), [AHEAD, LEFT, BEHIND, far], [0.04, 0.6, 0.5, 0.9], [0, 1, 0, 0])
    assert_boxes(found.boxes, [LEFT, BEHIND])
    one = proposed(frame_of(*RIG), [AHEAD, LEFT], [0.5, 0.6], [0, 1], ProposalLimits(1, 0.05, 0.75))
    assert_boxes(one.boxes, [LEFT])
    assert len(proposed(frame_of(*RIG), [], [], []).scores) == 0


@pytest.mark.parametrize(
    ('label', 'size', 'count'), [(0, AHEAD[3:6], 1), (1, LEFT[3:6], 2)], ids=['same class', 'other class']
)
def test_of_overlapping_objects_of_a_class_the_better_one_stays(label, size, count):
    maps = predictions_of(frame_of(*RIG), [AHEAD, [*AHEAD[:3], *size, 1.0]], [0.5, 0.8], [0, label])
    place = int(maps['cls'][0, 0].argmax())
    neighbour = place + 1
    for values in maps.values():  # a second location that sees what the first does
        values[0, ..., neighbour] = values[0, ..., place]
    maps['cls'][0, :, place] = torch.tensor([0.0, -20.0])
    maps['cls'][0, :, neighbour] = -20.0
    maps['cls'][0, label, neighbour] = 1.0
    maps['box2d'][0, :, place] = torch.tensor([100.0, 100, 140, 100])
    maps['box2d'][0, :, neighbour] = torch.tensor([140.0, 100, 100, 100])
    found = propose(maps, POINTS, frame_of(*RIG), CANONICAL, (0.1, 80.0), GRID, LIMITS)
    assert len(found.scores) == count and found.labels[0] == label


def test_a_projection_is_split_as_the_training_pipeline_has_it(cfg, synthetic_root, info_files):
    """Of resized, cropped and mirrored images, whose intrinsics ``LoadCameraInstances`` knows from the infos."""
    dataset = dataset_of(cfg, 'train', synthetic_root, info_files['mini_train'])
    mirrored = set()
    for seed in range(4):
        meta = seeded_item(dataset, 4, seed)['data_samples'].metainfo
        lidar2img = torch.from_numpy(np.stack(meta['lidar2img']))
        intrinsics, lidar2cam = split_projection(lidar2img)
        torch.testing.assert_close(
            intrinsics.float(), torch.as_tensor(meta['camera_intrinsics']), atol=1e-3, rtol=1e-5
        )
        torch.testing.assert_close((intrinsics @ lidar2cam[:, :3]), lidar2img[:, :3])
        mirrored.add(bool(torch.linalg.det(lidar2cam[0]) < 0))
    assert mirrored == {False, True}


def test_what_is_no_projection_is_refused():
    flat = RIG[0].copy()
    flat[1] = flat[0]
    with pytest.raises(InputError, match=r'lidar2img of sample sample, .*: no projections onto images: \[1\]'):
        proposed(frame_of(RIG[0], flat), [], [], [])


def test_boxes_are_moved_as_those_of_the_dataset():
    boxes = torch.tensor([[*AHEAD], [*LEFT], [*BEHIND]])
    for angle, scale, flips in ((0.7, 1.0, (False, False)), (-2.0, 0.9, (True, False)), (3.0, 1.1, (True, True))):
        moved = LiDARInstance3DBoxes(boxes.clone(), 7, origin=(0.5, 0.5, 0.5))
        move_boxes(moved, angle, scale, *flips)
        expected = torch.cat([moved.gravity_center, moved.tensor[:, 3:7]], dim=1)
        assert_boxes(transform_boxes(boxes, torch.from_numpy(bev_matrix(angle, scale, *flips))), expected.tolist())


def query_source(groups: int = 1) -> PerspectiveProposals:
    torch.manual_seed(0)
    return PerspectiveProposals(16, 2, GRID, num_query=3, num_groups=groups, num_proposals=4)


def some_proposals(count: int) -> Proposals:
    boxes = torch.tensor([AHEAD, LEFT, BEHIND, AHEAD])[:count]
    return Proposals(boxes, torch.tensor([0.9, 0.8, 0.7, 0.6])[:count], torch.tensor([0, 1, 0, 1])[:count])


def test_every_group_has_its_learned_queries_then_proposals_then_spare_ones():
    source = query_source(groups=2).train()
    queries = source(torch.zeros(2, 64, 16), [some_proposals(2), some_proposals(0)])
    assert queries.num_groups == 2 and queries.content.shape == queries.position.shape == (2, 14, 16)
    low, high = torch.tensor(GRID.point_cloud_range).split(3)
    wanted = (torch.tensor([AHEAD[:3], LEFT[:3]]) - low) / (high - low)
    learned = source.query_embedding.weight[:, :16]
    spare = source.spare_embedding.weight[:, :16]
    for group in range(2):
        of_group = slice(7 * group, 7 * group + 7)
        points = queries.reference_points[:, of_group]
        torch.testing.assert_close(points[0, 3:5], wanted)
        torch.testing.assert_close(queries.position[:, of_group][0, :3], learned[3 * group : 3 * group + 3])
        torch.testing.assert_close(queries.position[:, of_group][0, 5:], spare[2:])
        torch.testing.assert_close(queries.position[:, of_group][1, 3:], spare)
        torch.testing.assert_close(points[1, 3:], source.reference_points(spare).sigmoid())
    assert torch.equal(queries.content[:, 3:7], queries.content[:, 10:14])
    alone = source.eval()(torch.zeros(2, 64, 16), [some_proposals(2), some_proposals(0)])
    assert alone.num_groups == 1
    torch.testing.assert_close(alone.reference_points, queries.reference_points[:, :7])


def test_class_and_shape_of_a_proposal_are_told_to_the_decoder():
    source = query_source().eval()
    content = source(torch.zeros(1, 64, 16), [some_proposals(2)]).content[0, 3:5]
    for changes in (
        dict(labels=torch.tensor([1, 1])),
        dict(scores=torch.tensor([0.5, 0.8])),
        dict(boxes=torch.tensor([[*AHEAD[:3], 5.0, *AHEAD[4:]], LEFT])),
        dict(boxes=torch.tensor([[*AHEAD[:6], 1.0], LEFT])),
    ):
        other = source(torch.zeros(1, 64, 16), [replace(some_proposals(2), **changes)]).content[0, 3:5]
        assert (other[0] - content[0]).abs().max() > 1e-3 and torch.equal(other[1], content[1])


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(num_proposals=0), 'num_proposals is at least 1, got 0: without proposals take LearnedQueries'),
        (dict(min_score=1.5), r'min_score of PerspectiveProposals lies in \[0, 1\], got 1.5'),
        (dict(max_overlap=-0.1), r'max_overlap of PerspectiveProposals lies in \[0, 1\], got -0.1'),
        (dict(num_query=0), 'num_query is at least 1, got 0'),
    ],
)
def test_settings_without_sense_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        PerspectiveProposals(16, 2, GRID, **settings)


def test_queries_without_proposals_are_refused():
    with pytest.raises(InputError, match='makes queries of what the perspective head proposes, and was given none'):
        query_source()(torch.zeros(1, 64, 16))


@pytest.mark.parametrize(
    ('heads', 'message'),
    [
        (dict(perspective=None), r'and model.heads has none: give one, .*queries.type=LearnedQueries'),
        (dict(second='copy'), r'and model.heads has 2 of them \(perspective, second\)'),
        (dict(perspective=dict(num_classes=2, canonical_sizes=[[1, 1, 1]] * 2)), r'knows 10 classes .* starts, 2'),
    ],
    ids=['no perspective head', 'two of them', 'other classes'],
)
def test_a_detector_without_a_fitting_perspective_head_is_refused(cfg, heads, message):
    changed = deepcopy(cfg)
    for name, head in heads.items():
        own = changed.model.heads.perspective
        changed.model.heads[name] = None if head is None else own if head == 'copy' else {**own, **head}
    with pytest.raises(InputError, match=message):
        build(changed)


def test_a_step_trains_every_parameter_and_no_proposal(cfg, synthetic_root, info_files):
    """The perspective head learns from its own losses alone: without them nothing reaches it."""
    model = build(cfg).train()
    model_inputs = batch_of(
        model, [seeded_item(dataset_of(cfg, 'train', synthetic_root, info_files['mini_train']), 4, 0)]
    )
    statistics = {name: value.clone() for name, value in model.heads['perspective'].named_buffers()}
    proposals = model(*model_inputs, mode='tensor').proposals
    assert len(proposals) == 1 and len(proposals[0].scores) == 6
    for name, value in model.heads['perspective'].named_buffers():
        assert torch.equal(value, statistics[name]), name  # proposing is done in eval mode
    assert all(module.training for module in model.modules())
    losses = model(*model_inputs, mode='loss')
    sum(loss for name, loss in losses.items() if not name.endswith('_mono')).backward(retain_graph=True)
    of_head = [p.grad is None for name, p in model.named_parameters() if name.startswith('heads.perspective.')]
    assert of_head and all(of_head)
    sum(losses.values()).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    for name in ('class_embedding.weight', 'shape.weight', 'position.0.weight', 'query_embedding.weight'):
        assert model.get_parameter(f'heads.detection.queries.{name}').grad.abs().max() > 0


def test_a_batch_of_two_is_two_batches_of_one(cfg, synthetic_root, info_files):
    """As in test_bevformer_v2.py, with proposals of images and BEVs that are augmented differently."""
    dataset = dataset_of(cfg, 'train', synthetic_root, info_files['mini_train'])
    items = [seeded_item(dataset, 4, 1), seeded_item(dataset, 7, 4)]
    try:
        assert_same_gradients(*gradients_of_batch_and_sum(cfg, items, seed=0))
    except AssertionError:
        assert_same_gradients(*gradients_of_batch_and_sum(cfg, items, seed=1))


@torch.no_grad()
def test_streams_propose_what_whole_items_do(cfg, synthetic_root, info_files):
    model = build(cfg).eval()
    tested = dataset_of(cfg, 'val', synthetic_root, info_files['mini_train'])
    pipeline = cfg.val_dataloader.dataset.pipeline
    whole = dataset_of(
        cfg, 'train', synthetic_root, info_files['mini_train'], pipeline=pipeline, filter_empty_gt=False
    )
    for index in list(SceneStreamSampler(tested))[:4]:
        decoded = record_calls(model.heads['detection'].decoder)
        (streamed,) = model.predict(*batch_of(model, [tested[index]]))
        anew = model(*batch_of(model, [whole[index]]), mode='tensor')
        ours = model.heads['detection'].predict(anew)['pred_instances_3d'][0]
        torch.testing.assert_close(streamed.pred_instances_3d.scores_3d, ours.scores_3d, atol=1e-5, rtol=0)
        assert decoded[0].inputs['reference_points'].shape == (1, 26, 3)


@torch.no_grad()
def test_half_precision_proposes_nearly_the_same_places(cfg, synthetic_root, info_files):
    model = without_batch_statistics(build(cfg))
    inputs = batch_of(model, [train_item(cfg, synthetic_root, info_files)])
    with torch.autocast('cpu', torch.bfloat16):
        encoded = model(*inputs, mode='tensor')
        losses = model(*inputs, mode='loss')
    assert encoded.proposals[0].boxes.dtype == torch.float32 and encoded.proposals[0].boxes.isfinite().all()
    assert all(loss.isfinite() for loss in losses.values())


def test_the_head_that_proposes_is_needed_in_a_checkpoint(cfg):
    plain = shrunk_config('t1', [0])
    assert training_only(build(plain)) == ('heads.perspective.',)
    assert training_only(build(cfg)) == ()
