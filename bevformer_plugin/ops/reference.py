"""Multi-scale deformable attention in PyTorch: the definition, for every device and floating type."""

import torch
from torch import Tensor
from torch.nn import functional as F


def forward(
    value: Tensor, shapes: list[list[int]], sampling_locations: Tensor, attention_weights: Tensor, lengths: Tensor
) -> Tensor:
    """(R, heads * C); arguments as of :func:`.multi_scale_deformable_attention.ragged_deformable_attention`."""
    rows = lengths.tolist()
    if len(set(rows)) == 1:
        batch = sampling_locations.unflatten(0, (len(rows), -1)), attention_weights.unflatten(0, (len(rows), -1))
        return _attend(value, shapes, *batch).flatten(0, 1)
    parts = [
        _attend(maps[None], shapes, locations[None], weights[None])[0]
        for maps, locations, weights in zip(
            value, sampling_locations.split(rows), attention_weights.split(rows), strict=True
        )
    ]
    return torch.cat(parts)


def backward(
    grad_output: Tensor,
    value: Tensor,
    shapes: list[list[int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
    lengths: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of value, locations and weights, by running forward once more."""
    inputs = [tensor.detach().requires_grad_() for tensor in (value, sampling_locations, attention_weights)]
    with torch.enable_grad():
        output = forward(inputs[0], shapes, *inputs[1:], lengths)
    return torch.autograd.grad(output, inputs, grad_output)


def _attend(value: Tensor, shapes: list[list[int]], sampling_locations: Tensor, attention_weights: Tensor) -> Tensor:
    """(B, Q, heads * C) of (B, S, heads, C), (B, Q, heads, L, P, 2) and (B, Q, heads, L, P)."""
    batch, _, heads, channels = value.shape
    queries = sampling_locations.shape[1]
    # Queries last: products and sums over points then run along contiguous rows.
    grids = (2 * sampling_locations - 1).permute(0, 2, 3, 4, 1, 5).flatten(0, 1)  # (B*heads)xLxPxQx2
    weights = attention_weights.permute(0, 2, 3, 4, 1).flatten(0, 1).unsqueeze(1)  # (B*heads)x1xLxPxQ
    levels = value.permute(0, 2, 3, 1).flatten(0, 1).split([h * w for h, w in shapes], dim=2)  # (B*heads)xCx(h*w) each
    output = 0
    for level, (level_map, shape) in enumerate(zip(levels, shapes, strict=True)):
        sampled = F.grid_sample(
            level_map.unflatten(2, shape), grids[:, level], mode='bilinear', padding_mode='zeros', align_corners=False
        )  # (B*heads)xCxPxQ
        output = output + (sampled * weights[:, :, level]).sum(2)  # (B*heads)xCxQ
    return output.view(batch, heads * channels, queries).transpose(1, 2).contiguous()
