"""The layers return the published implementation's numbers; see tests/data/reference/README.md."""
import pytest
import torch

from bevformer_plugin.geometry import BEVGrid, bev_reference_points, pillar_points, project_to_cameras
from bevformer_plugin.layers import BEVFormerEncoder, TemporalSelfAttention

TSA_NAMES = [(name, f'attention.{name}') for name in ('sampling_offsets', 'attention_weights', 'value_proj')]
ENCODER_NAMES = [
    ('attentions.0.output_proj', 'temporal_self_attention.output_proj'),
    ('attentions.0.', 'temporal_self_attention.attention.'),
    ('attentions.1.', 'spatial_cross_attention.'),
    ('ffns.0.', 'ffn.'),
]


@pytest.fixture
def grid(modules):
    return BEVGrid(*modules['encoder/bev_shape'].tolist(), tuple(modules['encoder/pc_range'].tolist()))


def test_reference_points(modules, grid):
    torch.testing.assert_close(bev_reference_points(grid), modules['encoder/reference_points_2d'][0, :, 0])
    low, high = torch.tensor(grid.point_cloud_range).view(2, 3)
    fractions = (pillar_points(grid, 4) - low) / (high - low)
    torch.testing.assert_close(fractions, modules['encoder/reference_points_3d'][0])


def test_projection(modules, grid):
    reference, visible = project_to_cameras(
        pillar_points(grid, 4), modules['encoder/lidar2img'][None], tuple(modules['encoder/img_shape'].tolist()))
    assert torch.equal(visible[0], modules['encoder/bev_mask'][:, 0])
    torch.testing.assert_close(reference[0], modules['encoder/reference_points_cam'][:, 0])


@pytest.mark.parametrize('with_history', [True, False])
@torch.no_grad()
def test_temporal_self_attention(modules, load_published, with_history):
    attention = load_published(TemporalSelfAttention(64, num_heads=8), 'tsa', TSA_NAMES)
    query, previous = modules['tsa/query'], modules['tsa/prev_bev']
    output = attention(
        query, modules['tsa/query_pos'], torch.stack([previous if with_history else query, query], dim=1),
        modules['tsa/reference_points'].squeeze(2)[None], modules['tsa/bev_shape'][None])
    expected = modules['tsa/output_with_prev' if with_history else 'tsa/output_first_frame']
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('with_history', [True, False])
@torch.no_grad()
def test_encoder(modules, grid, load_published, with_history):
    encoder = load_published(BEVFormerEncoder(2, 64, num_heads=8, feedforward_channels=128, num_levels=2), 'encoder',
                             ENCODER_NAMES)
    shapes = modules['encoder/feature_shapes'].tolist()
    levels = modules['encoder/features'].permute(2, 0, 3, 1).split([h * w for h, w in shapes], dim=-1)  # 1xNxCxS
    reference_points_cam, visible = project_to_cameras(
        pillar_points(grid, 4), modules['encoder/lidar2img'][None], tuple(modules['encoder/img_shape'].tolist()))
    output = encoder(
        modules['encoder/bev_query'].transpose(0, 1), modules['encoder/bev_pos'].transpose(0, 1),
        [level.unflatten(-1, hw) for level, hw in zip(levels, shapes, strict=True)], reference_points_cam, visible,
        modules['encoder/prev_bev'].transpose(0, 1) if with_history else None, torch.tensor([with_history]),
        modules['encoder/shift_xy'], grid)
    expected = modules['encoder/output_with_prev' if with_history else 'encoder/output_first_frame']
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=0)
