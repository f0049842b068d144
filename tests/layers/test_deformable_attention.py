"""The attention core that TSA, SCA and the decoder share."""

import pytest
import torch

from bevformer_plugin.layers import DeformableAttentionCore

SHAPES = torch.tensor([[4, 6], [2, 3]])


def test_starts_by_looking_in_every_direction():
    core = DeformableAttentionCore(32, num_heads=8, num_levels=2, num_points=3, num_slots=2)
    offsets, weights = core.predict_sampling(torch.randn(2, 5, 32))
    assert offsets.shape == (2, 5, 8, 2, 2, 3, 2)
    torch.testing.assert_close(offsets, offsets[:1, :1, :, :1, :1].expand_as(offsets))
    one_cell = [[1, 0], [1, 1], [0, 1], [-1, 1], [-1, 0], [-1, -1], [0, -1], [1, -1]]
    for point in range(3):
        expected = torch.tensor(one_cell) * (point + 1.0)
        torch.testing.assert_close(offsets[0, 0, :, 0, 0, point], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / 6))


def test_each_slot_has_a_softmax_of_its_own(randomize):
    core = randomize(DeformableAttentionCore(16, num_heads=2, num_levels=2, num_points=3, num_slots=2, query_dims=24))
    _, weights = core.predict_sampling(torch.randn(2, 5, 24))
    assert weights.shape == (2, 5, 2, 2, 2, 3)
    torch.testing.assert_close(weights.sum(dim=(-1, -2)), torch.ones(2, 5, 2, 2))
    assert not torch.allclose(weights[:, :, :, 0], weights[:, :, :, 1])


def test_offsets_count_cells_of_their_level():
    """An offset of (2, -1) reads two columns on and one row back, on the coarse level as on the fine one."""
    value = torch.arange(30.0).view(1, 30, 1, 1)
    offsets = torch.tensor([2.0, -1.0]).expand(1, 1, 1, 2, 1, 2)
    centre = torch.tensor([[1.5 / 6, 2.5 / 4], [0.5 / 3, 1.5 / 2]])  # row 2, column 1; row 1, column 0
    weights = torch.tensor([[0.25], [0.75]]).view(1, 1, 1, 2, 1)
    output = DeformableAttentionCore.sample(value, SHAPES, centre.view(1, 1, 1, 2, 1, 2), offsets, weights)
    assert output.item() == pytest.approx(0.25 * (1 * 6 + 3) + 0.75 * (24 + 0 * 3 + 2), rel=1e-5)


def test_heads_must_divide_the_channels():
    with pytest.raises(ValueError, match='embed_dims=30 is not divisible by num_heads=8'):
        DeformableAttentionCore(30, num_heads=8, num_levels=1, num_points=4)
