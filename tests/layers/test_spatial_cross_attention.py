"""Spatial cross-attention, equation (2)."""

import pytest
import torch

from bevformer_plugin.layers import PillarHits, SpatialCrossAttention
from bevformer_plugin.ops import multi_scale_deformable_attention
from tests.layers.made_up import flatten


def by_a_loop(
    attention: SpatialCrossAttention,
    query: torch.Tensor,
    features: list[torch.Tensor],
    reference_points_cam: torch.Tensor,
    visible: torch.Tensor,
) -> torch.Tensor:
    """Equation (2), one query, camera and height at a time."""
    core = attention.deformable_attention
    values, shapes = flatten(features)
    output = torch.zeros_like(query)
    for sample in range(query.shape[0]):
        for index in range(query.shape[1]):
            q = query[sample, index]
            offsets = core.sampling_offsets(q).view(4, 2, 8, 2)  # heads x levels x points
            weights = core.attention_weights(q).view(4, 16).softmax(-1).view(4, 2, 8)
            cameras = [n for n in range(visible.shape[1]) if visible[sample, n, index].any()]
            for camera in cameras:
                value = core.value_proj(values[sample, camera]).view(1, -1, 4, 4)
                for height in range(4):
                    points = slice(height, None, 4)  # point p belongs to height p mod 4
                    locations = (
                        reference_points_cam[sample, camera, index, height]
                        + offsets[:, :, points] / shapes.flip(-1)[:, None]
                    )
                    output[sample, index] += multi_scale_deformable_attention(
                        value, shapes, locations[None, None], weights[None, None, :, :, points]
                    )[0, 0] / len(cameras)
    return query + attention.output_proj(output)


@torch.no_grad()
def test_against_a_loop(make_scene, randomize):
    scene = make_scene()
    attention = randomize(SpatialCrossAttention(16, num_heads=4, num_levels=2))
    reference_points_cam, visible = scene.project()
    hits = visible.any(-1)
    assert (hits.sum(1) == 2).any()  # cameras overlap
    assert (hits & ~visible.all(-1)).any()  # some pillars are seen in part
    assert not torch.equal(hits[0], hits[1])
    output = attention(scene.bev_query, *flatten(scene.features), PillarHits.from_projection(*scene.project()))
    expected = by_a_loop(attention, scene.bev_query, scene.features, reference_points_cam, visible)
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)


def test_hits_are_listed_by_sample_then_camera():
    visible = torch.zeros(2, 3, 4, 4, dtype=torch.bool)
    visible[0, 1, 2, 3] = visible[0, 2, 2, 0] = visible[1, 0, 0, 1] = True
    reference = torch.arange(2.0 * 3 * 4 * 4 * 2).view(2, 3, 4, 4, 2)
    hits = PillarHits.from_projection(reference, visible)
    assert hits.query_index.tolist() == [2, 2, 4]
    assert hits.lengths.tolist() == [0, 1, 1, 1, 0, 0]
    expected = torch.stack([reference[0, 1, 2], reference[0, 2, 2], reference[1, 0, 0]])
    assert torch.equal(hits.reference_points, expected)
    assert hits.num_cameras_seeing.flatten().tolist() == [1, 1, 2, 1, 1, 1, 1, 1]


def test_queries_that_no_camera_sees_learn_nothing_from_the_images(make_scene, randomize):
    scene = make_scene(cameras=1)
    attention = randomize(SpatialCrossAttention(16, num_heads=4, num_levels=2))
    hits = PillarHits.from_projection(*scene.project())
    features, shapes = flatten(scene.features)
    features.requires_grad_()
    output = attention(scene.bev_query, features, shapes, hits)
    unseen = ~scene.project()[1].any(-1).any(1)  # BxQ
    assert 0.5 < unseen.float().mean() < 1
    update = output - scene.bev_query
    torch.testing.assert_close(update[unseen], attention.output_proj.bias.expand_as(update[unseen]))
    assert torch.autograd.grad(output[unseen].sum(), features, retain_graph=True)[0].abs().max() == 0
    assert torch.autograd.grad(output[~unseen].sum(), features)[0].abs().max() > 0


def test_no_camera_sees_anything(make_scene, randomize):
    scene = make_scene()
    attention = randomize(SpatialCrossAttention(16, num_heads=4, num_levels=2))
    reference_points_cam, visible = scene.project()
    hits = PillarHits.from_projection(reference_points_cam, torch.zeros_like(visible))
    output = attention(scene.bev_query, *flatten(scene.features), hits)
    torch.testing.assert_close(output, scene.bev_query + attention.output_proj.bias)


@pytest.mark.parametrize('cameras', [5, 7])
@torch.no_grad()
def test_cameras_have_no_order(make_scene, randomize, cameras):
    scene = make_scene(cameras=cameras)
    attention = randomize(SpatialCrossAttention(16, num_heads=4, num_levels=2))
    features, shapes = flatten(scene.features)
    output = attention(scene.bev_query, features, shapes, PillarHits.from_projection(*scene.project()))
    scene.lidar2img = scene.lidar2img.flip(1)
    flipped = attention(scene.bev_query, features.flip(1), shapes, PillarHits.from_projection(*scene.project()))
    torch.testing.assert_close(output, flipped, atol=1e-5, rtol=1e-5)


def test_points_must_divide_into_heights():
    with pytest.raises(ValueError, match='num_points=6 is not a multiple of the 4 heights'):
        SpatialCrossAttention(16, num_heads=4, num_levels=1, num_points=6)
