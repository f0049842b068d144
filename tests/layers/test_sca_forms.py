"""The other forms of spatial cross-attention: points only, and global."""

import pytest
import torch
from mmdet.models.layers import SinePositionalEncoding

from bevformer_plugin.layers import (
    GlobalSpatialCrossAttention,
    PillarHits,
    PointSpatialCrossAttention,
    SpatialCrossAttention,
)
from tests.layers.made_up import flatten

FORMS = {
    'points': lambda: PointSpatialCrossAttention(16, num_heads=4, num_levels=2),
    'dot product': lambda: GlobalSpatialCrossAttention(16, 4, 2, score=dict(type='ScaledDotProduct')),
    'narrow dot product': lambda: GlobalSpatialCrossAttention(16, 4, 2, score_dims=2),
    'additive': lambda: GlobalSpatialCrossAttention(16, 4, 2, score=dict(type='AdditiveScore', hidden_dims=3)),
    'bilinear': lambda: GlobalSpatialCrossAttention(16, 4, 2, score=dict(type='BilinearScore')),
}


def attend(attention: torch.nn.Module, scene) -> torch.Tensor:
    return attention(scene.bev_query, *flatten(scene.features), PillarHits.from_projection(*scene.project()))


@torch.no_grad()
def test_points_are_deformable_without_offsets(make_scene, randomize):
    scene = make_scene()
    points = randomize(PointSpatialCrossAttention(16, num_heads=4, num_levels=2))
    deformable = SpatialCrossAttention(16, num_heads=4, num_levels=2, num_points=4).eval()
    missing, unexpected = deformable.load_state_dict(points.state_dict(), strict=False)
    assert (missing, unexpected) == (
        [f'deformable_attention.sampling_offsets.{name}' for name in ('weight', 'bias')],
        [],
    )
    offsets = deformable.deformable_attention.sampling_offsets
    offsets.weight.zero_()
    assert not torch.allclose(attend(points, scene), attend(deformable, scene))
    offsets.bias.zero_()
    torch.testing.assert_close(attend(points, scene), attend(deformable, scene))


@torch.no_grad()
def test_global_against_a_loop(make_scene, randomize):
    scene = make_scene()
    attention = randomize(FORMS['dot product']())
    pooling = attention.pooling
    encoding = SinePositionalEncoding(8, normalize=True)
    places = [encoding(torch.zeros(1, *level.shape[-2:]))[0] for level in scene.features]  # Cxhxw
    expected = scene.bev_query.clone()
    for sample in range(2):
        keys, values = [], []
        for camera in range(6):
            for level, place in zip(scene.features, places, strict=True):
                for row in range(level.shape[-2]):
                    for column in range(level.shape[-1]):
                        feature = level[sample, camera, :, row, column]
                        keys.append(pooling.key_proj(feature + place[:, row, column]))
                        values.append(pooling.value_proj(feature))
        keys, values = torch.stack(keys).view(-1, 4, 4), torch.stack(values).view(-1, 4, 4)  # KxheadsxC/heads
        queries = pooling.query_proj(scene.bev_query[sample]).view(-1, 4, 4)
        weights = torch.einsum('qhc,khc->qhk', queries, keys).div(2).softmax(-1)
        pooled = torch.einsum('qhk,khc->qhc', weights, values).flatten(1)
        expected[sample] += pooling.output_proj(pooled)
    torch.testing.assert_close(attend(attention, scene), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('form', FORMS)
@torch.no_grad()
def test_a_batch_of_two_is_two_batches_of_one(make_scene, randomize, form):
    scene = make_scene()
    attention = randomize(FORMS[form]())
    both = attend(attention, scene)
    for sample in range(2):
        torch.testing.assert_close(
            both[sample : sample + 1], attend(attention, scene.one(sample)), atol=1e-5, rtol=1e-5
        )


@torch.no_grad()
def test_only_global_looks_beyond_the_projected_points(make_scene, randomize):
    scene = make_scene(cameras=1)
    unseen = ~scene.project()[1].any(-1).any(1)  # BxQ
    for form, make in FORMS.items():
        update = attend(randomize(make()), scene) - scene.bev_query
        alike = (update[unseen] - update[unseen][0]).abs().max() < 1e-6
        assert alike == (form == 'points'), form


def test_global_knows_places(make_scene, randomize):
    """Two pixels with the same feature are told apart by where they are."""
    scene = make_scene()
    attention = randomize(FORMS['dot product']())
    before = attend(attention, scene)
    level = scene.features[0]
    level[..., 0, 0], level[..., 5, 9] = level[..., 5, 9].clone(), level[..., 0, 0].clone()
    assert (attend(attention, scene) - before).abs().max() > 1e-4
