"""Every case of modules.npz."""

import pytest
import torch
from scipy.spatial.transform import Rotation

from bevformer_plugin.geometry import (
    BEVGrid,
    bev_reference_points,
    boxes_from_old_convention,
    boxes_to_old_convention,
    pillar_points,
    project_to_cameras,
)
from bevformer_plugin.layers import (
    AlignedHistory,
    BEVFormerEncoder,
    DetectionTransformerDecoder,
    PillarHits,
    TemporalSelfAttention,
)
from bevformer_plugin.models import (
    BEVEncoder,
    BEVHistory,
    CameraFeatures,
    Frame,
    HungarianAssigner3D,
    LearnedQueries,
    NMSFreeCoder,
)
from bevformer_plugin.ops import multi_scale_deformable_attention
from bevformer_plugin.weights import to_ours
from tests.helpers.reference_files import box_rows, manifest, published_weights


def load(module: torch.nn.Module, case: str, place: str = '') -> torch.nn.Module:
    """Fill a module with the weights of a case; ``place`` is where the module sits in the whole model."""
    state = published_weights(manifest('modules')[case])
    ours = to_ours({place + name: value for name, value in state.items()})
    beginning = place.replace('attentions.0.', 'temporal_self_attention.')
    module.load_state_dict({name.removeprefix(beginning): value for name, value in ours.items()})
    return module.eval()


@pytest.fixture
def grid(modules):
    return BEVGrid(*modules['encoder/bev_shape'].tolist(), tuple(modules['encoder/pc_range'].tolist()))


def test_multi_scale_deformable_attention(modules):
    names = ('value', 'sampling_locations', 'attention_weights')
    value, locations, weights = (modules[f'msda/{name}'].clone().requires_grad_() for name in names)
    output = multi_scale_deformable_attention(value, modules['msda/spatial_shapes'], locations, weights)
    torch.testing.assert_close(output, modules['msda/output'], atol=1e-5, rtol=1e-5)
    output.backward(modules['msda/grad_output'])
    for name, tensor in zip(names, (value, locations, weights), strict=True):
        torch.testing.assert_close(tensor.grad, modules[f'msda/grad_{name}'], atol=1e-4, rtol=1e-4)


def test_reference_points(modules, grid):
    torch.testing.assert_close(bev_reference_points(grid), modules['encoder/reference_points_2d'][0, :, 0])
    low, high = torch.tensor(grid.point_cloud_range).view(2, 3)
    fractions = (pillar_points(grid, 4) - low) / (high - low)
    torch.testing.assert_close(fractions, modules['encoder/reference_points_3d'][0])


def test_projection(modules, grid):
    reference, visible = project_to_cameras(
        pillar_points(grid, 4), modules['encoder/lidar2img'][None], tuple(modules['encoder/img_shape'].tolist())
    )
    assert torch.equal(visible[0], modules['encoder/bev_mask'][:, 0])
    torch.testing.assert_close(reference[0], modules['encoder/reference_points_cam'][:, 0])


@pytest.mark.parametrize('with_history', [True, False])
@torch.no_grad()
def test_temporal_self_attention(modules, with_history):
    attention = load(TemporalSelfAttention(64, num_heads=8), 'tsa', 'encoder.layers.0.attentions.0.')
    query, previous = modules['tsa/query'], modules['tsa/prev_bev']
    output = attention(
        query,
        modules['tsa/query_pos'],
        torch.stack([previous if with_history else query, query], dim=1),
        modules['tsa/reference_points'].squeeze(2)[None],
        modules['tsa/bev_shape'][None],
    )
    expected = modules['tsa/output_with_prev' if with_history else 'tsa/output_first_frame']
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('with_history', [True, False])
@torch.no_grad()
def test_encoder(modules, grid, with_history):
    encoder = load(
        BEVFormerEncoder(
            2,
            64,
            num_heads=8,
            feedforward_channels=128,
            num_levels=2,
            spatial_cross_attention=dict(type='SpatialCrossAttention'),
        ),
        'encoder',
        'encoder.',
    )
    shapes = modules['encoder/feature_shapes'].tolist()
    levels = modules['encoder/features'].permute(2, 0, 3, 1).split([h * w for h, w in shapes], dim=-1)  # 1xNxCxS
    reference_points_cam, visible = project_to_cameras(
        pillar_points(grid, 4), modules['encoder/lidar2img'][None], tuple(modules['encoder/img_shape'].tolist())
    )
    output = encoder(
        modules['encoder/bev_query'].transpose(0, 1),
        modules['encoder/bev_pos'].transpose(0, 1),
        [level.unflatten(-1, hw) for level, hw in zip(levels, shapes, strict=True)],
        PillarHits.from_projection(reference_points_cam, visible),
        AlignedHistory(
            modules['encoder/prev_bev'].transpose(0, 1), torch.tensor([with_history]), modules['encoder/shift_xy']
        ),
        grid,
    )
    expected = modules['encoder/output_with_prev' if with_history else 'encoder/output_first_frame']
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=0)


class Positions(torch.nn.Module):
    """The positions of the file, whose sums of rows and columns no learned encoding would give."""

    def __init__(self, positions: torch.Tensor) -> None:
        super().__init__()
        self.positions = positions

    def forward(self, mask: torch.Tensor) -> torch.Tensor:
        return self.positions


@torch.no_grad()
def test_transformer(modules, grid):
    """The encoder and the decoder that published weights know as one transformer."""
    center = tuple(modules['transformer/rotate_center'].tolist())
    encoder = BEVEncoder(
        encoder=dict(
            type='BEVFormerEncoder', num_layers=2, spatial_cross_attention=dict(type='SpatialCrossAttention')
        ),
        grid=grid,
        embed_dims=64,
        num_cameras=6,
        num_levels=2,
        feedforward_channels=128,
        ego_motion=dict(preset='official_v1', rotate_center=center),
    )
    decoder = DetectionTransformerDecoder(2, 64, num_heads=8, feedforward_channels=128)
    queries = LearnedQueries(64, num_classes=10, grid=grid, num_query=len(modules['transformer/object_query_embed']))
    state = published_weights(manifest('modules')['transformer'])
    ours = to_ours({f'pts_bbox_head.transformer.{name}': value for name, value in state.items()})
    for module, place, own in (
        (encoder, 'bev_encoder.', ('bev_embedding', 'positional_encoding')),
        (decoder, 'heads.detection.decoder.', ()),
        (queries, 'heads.detection.queries.', ('query_embedding',)),
    ):
        part = {name.removeprefix(place): value for name, value in ours.items() if name.startswith(place)}
        kept = {name: value for name, value in module.state_dict().items() if name.startswith(own)} if own else {}
        module.load_state_dict({**part, **kept})
        module.eval()
    encoder.bev_embedding.weight.copy_(modules['transformer/bev_queries'])
    encoder.positional_encoding = Positions(modules['transformer/bev_pos'])
    queries.query_embedding.weight.copy_(modules['transformer/object_query_embed'])

    # The file has the motion as the network sees it: here are two poses that it is between.
    motion = modules['transformer/can_bus'].double()
    current, previous = torch.eye(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    for pose, heading in ((current, motion[16]), (previous, motion[16] - torch.deg2rad(motion[17]))):
        pose[:3, :3] = torch.from_numpy(Rotation.from_euler('z', heading.item()).as_matrix())
    current[:3, 3] = motion[:3]
    frames = [
        Frame('', 'scene', timestamp, modules['encoder/lidar2img'].double(), pose, motion[3:16])
        for timestamp, pose in ((0.0, previous), (0.5, current))
    ]
    levels = [modules['transformer/feature_level0'], modules['transformer/feature_level1']]
    features = CameraFeatures([0], levels, tuple(modules['encoder/img_shape'].tolist()))
    history = BEVHistory(modules['transformer/prev_bev'][:, 0], frames[0])
    bev_embed = encoder(features, frames[1:], [history])
    torch.testing.assert_close(bev_embed, modules['transformer/bev_embed'], atol=1e-4, rtol=0)

    start = queries(bev_embed)
    # Branches whose boxes are 0 leave the reference points where they are, as the file's decoder without branches.
    still = torch.nn.ModuleList(torch.nn.Linear(64, 10) for _ in range(2))
    for branch in still:
        branch.weight.zero_(), branch.bias.zero_()
    decoded = decoder(
        start.content, start.position, bev_embed, start.reference_points, (grid.bev_h, grid.bev_w), still
    )
    expected = modules['transformer/decoder_states'].transpose(1, 2)
    torch.testing.assert_close(decoded.states, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(decoded.references[0], modules['transformer/init_reference'])
    torch.testing.assert_close(decoded.references[1:], modules['transformer/inter_references'])


def test_box_coder(modules):
    coder = NMSFreeCoder([-61.2, -61.2, -10.0, 61.2, 61.2, 10.0], max_num=40)
    boxes, scores, labels = coder.decode(modules['coder/cls'], box_rows(modules['coder/bbox']))
    torch.testing.assert_close(boxes_to_old_convention(boxes), modules['coder/boxes'])
    torch.testing.assert_close(scores, modules['coder/scores'])
    assert torch.equal(labels, modules['coder/labels'])


def test_assigner(modules):
    assigner = HungarianAssigner3D(dict(type='mmdet.FocalLossCost', weight=2.0), reg_cost_weight=0.25)
    result = assigner.assign(
        modules['coder/cls'],
        box_rows(modules['coder/bbox']),
        modules['assigner/gt_labels'],
        boxes_from_old_convention(modules['assigner/gt_boxes']),
    )
    assert torch.equal(result.gt_inds, modules['assigner/assigned_gt_inds'])
    assert torch.equal(result.labels, modules['assigner/assigned_labels'])
