"""Multi-scale deformable attention in plain PyTorch, for every device and floating type: its definition."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .attention_arguments import rows_of_maps


def forward(
    value: Tensor, shapes: list[list[int]], sampling_locations: Tensor, attention_weights: Tensor, lengths: Tensor
) -> Tensor:
    """Compute the output (R, heads * C).

    The arguments are those of :func:`.multi_scale_deformable_attention.ragged_deformable_attention`, the shapes as
    numbers.
    """
    rows = rows_of_maps(lengths, len(sampling_locations))
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
    """Compute the gradients of value, locations and weights, by running the forward pass once more.

    It runs inside of an operator, where autograd records nothing, so the gradients are those of ``torch.func``.
    """

    def attended(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        return forward(value, shapes, locations, weights, lengths)

    gradients = torch.func.vjp(attended, value, sampling_locations, attention_weights)[1]
    return gradients(grad_output)


def _attend(value: Tensor, shapes: list[list[int]], sampling_locations: Tensor, attention_weights: Tensor) -> Tensor:
    """Compute (B, Q, heads * C) from (B, S, heads, C), (B, Q, heads, L, P, 2) and (B, Q, heads, L, P)."""
    batch, _, heads, channels = value.shape
    queries = sampling_locations.shape[1]
    # Queries are the last axis, so that products and sums over points run along contiguous rows.
    grids = (2 * _placed(sampling_locations) - 1).permute(0, 2, 3, 4, 1, 5).flatten(0, 1)  # (B*heads)xLxPxQx2
    weights = attention_weights.permute(0, 2, 3, 4, 1).flatten(0, 1).unsqueeze(1)  # (B*heads)x1xLxPxQ
    levels = value.permute(0, 2, 3, 1).flatten(0, 1).split([h * w for h, w in shapes], dim=2)  # (B*heads)xCx(h*w) each
    output = value.new_zeros(batch * heads, channels, queries)
    for level, (level_map, shape) in enumerate(zip(levels, shapes, strict=True)):
        sampled = F.grid_sample(
            level_map.unflatten(2, shape), grids[:, level], mode='bilinear', padding_mode='zeros', align_corners=False
        )  # (B*heads)xCxPxQ
        output = output + (sampled * weights[:, :, level]).sum(2)  # (B*heads)xCxQ
    output = output.view(batch, heads, channels, queries).permute(0, 3, 1, 2)
    return (output + _not_finite(sampling_locations, attention_weights)).flatten(2)


def _placed(sampling_locations: Tensor) -> Tensor:
    """Move locations far outside of the map next to it, since ``grid_sample`` may treat far ones differently."""
    finite = sampling_locations.isfinite().all(-1, keepdim=True)
    return torch.where(finite, sampling_locations.clamp(-1, 2), 2.0)  # every cell ends before -0.5 and 1.5


def _not_finite(sampling_locations: Tensor, attention_weights: Tensor) -> Tensor:
    """Compute a term (B, Q, heads, 1) to add to the output, which is NaN wherever the output must not be finite.

    It is NaN if a location or weight of a query and head is not finite, else 0. Its gradients are NaN for a location
    that is not finite and for the weight of that location, and wherever the gradient of the output is not finite.
    """
    finite = sampling_locations.isfinite().all(-1, keepdim=True)
    nan_or_zero = torch.where(finite, 0.0, torch.nan).to(sampling_locations.dtype)
    return ((nan_or_zero * sampling_locations).sum(-1) * attention_weights).sum((-1, -2)).unsqueeze(-1)
