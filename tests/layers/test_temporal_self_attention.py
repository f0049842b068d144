"""Temporal self-attention, equation (5)."""

import torch

from bevformer_plugin.geometry import BEVGrid, bev_reference_points
from bevformer_plugin.layers import TemporalSelfAttention
from bevformer_plugin.ops import multi_scale_deformable_attention

GRID = BEVGrid(4, 6, (-6.0, -4.0, -5.0, 6.0, 4.0, 3.0))
SHAPE = torch.tensor([[4, 6]])


def inputs() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(3)
    query, position, previous = torch.randn(3, 2, 24, 16, generator=generator)
    here = bev_reference_points(GRID).expand(2, 24, 2)
    reference_points = torch.stack([here + torch.tensor([0.1, -0.05]), here], dim=1)
    return query, position, previous, reference_points


def test_average_of_two_deformable_attentions(randomize):
    """Written out: one attention per slot, steered by the previous BEV beside the query with its position."""
    attention = randomize(TemporalSelfAttention(16, num_heads=4))
    query, position, previous, reference_points = inputs()
    core = attention.attention
    seen = torch.cat([previous, query + position], dim=-1)
    offsets = core.sampling_offsets(seen).view(2, 24, 4, 2, 1, 4, 2)
    weights = core.attention_weights(seen).view(2, 24, 4, 2, 4).softmax(-1).unsqueeze(-2)
    slots = []
    for slot, value in enumerate((previous, query)):
        locations = reference_points[:, slot, :, None, None, None] + offsets[:, :, :, slot] / torch.tensor([6.0, 4.0])
        slots.append(
            multi_scale_deformable_attention(
                core.value_proj(value).view(2, 24, 4, 4), SHAPE, locations, weights[:, :, :, slot]
            )
        )
    expected = query + attention.output_proj((slots[0] + slots[1]) / 2)
    output = attention(query, position, torch.stack([previous, query], dim=1), reference_points, SHAPE)
    torch.testing.assert_close(output, expected)


def test_reads_the_previous_bev_where_the_vehicle_was():
    """Without offsets a query sees the previous BEV at its shifted place: here two columns right, one row ahead."""
    attention = TemporalSelfAttention(1, num_heads=1, num_points=1).eval()
    with torch.no_grad():
        attention.attention.sampling_offsets.bias.zero_()
        for linear in (attention.attention.value_proj, attention.output_proj):
            linear.weight.fill_(1)
            linear.bias.zero_()
    previous = torch.arange(1.0, 25.0).view(1, 24, 1)
    nothing = torch.zeros(1, 24, 1)
    here = bev_reference_points(GRID)
    reference_points = torch.stack([here + torch.tensor([2 / 6, 1 / 4]), here])[None]
    output = attention(nothing, nothing, torch.stack([previous, nothing], dim=1), reference_points, SHAPE)
    output, previous = output.view(4, 6), previous.view(4, 6)
    torch.testing.assert_close(output[:3, :4], previous[1:, 2:] / 2, atol=1e-4, rtol=0)
    assert output[3].abs().max() < 1e-4  # came from beyond the previous map


def test_residual_leaves_the_position_out(randomize):
    attention = randomize(TemporalSelfAttention(16, num_heads=4))
    query, position, previous, reference_points = inputs()
    with torch.no_grad():
        attention.output_proj.weight.zero_()
        attention.output_proj.bias.zero_()
    output = attention(query, position, torch.stack([previous, query], dim=1), reference_points, SHAPE)
    assert torch.equal(output, query)
