"""Random inputs of deformable attention; some sampling locations lie outside the maps."""

import torch
from torch import Tensor


def ragged_inputs(
    lengths: list[int],
    heads: int,
    channels: int,
    levels: list[tuple[int, int]],
    points: int,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the arguments of ``ragged_deformable_attention``, with ``lengths[i]`` queries of map i.

    Args:
        lengths: queries of each map.
        heads: attention heads.
        channels: of each head.
        levels: (h, w) of each level of a map.
        points: samples of each head and query on each level.
        dtype: of the floating-point ones.
    """
    generator = torch.Generator().manual_seed(len(lengths))
    rows = sum(lengths)
    value = torch.randn(len(lengths), sum(h * w for h, w in levels), heads, channels, generator=generator)
    locations = 1.6 * torch.rand(rows, heads, len(levels), points, 2, generator=generator) - 0.3
    weights = torch.rand(rows, heads, len(levels), points, generator=generator)
    return value.to(dtype), torch.tensor(levels), locations.to(dtype), weights.to(dtype), torch.tensor(lengths)


def batched_inputs(
    batch: int,
    queries: int,
    heads: int,
    channels: int,
    levels: list[tuple[int, int]],
    points: int,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the arguments of ``multi_scale_deformable_attention``: as :func:`ragged_inputs`, with equal lengths."""
    value, shapes, locations, weights, _ = ragged_inputs([queries] * batch, heads, channels, levels, points, dtype)
    return value, shapes, locations.unflatten(0, (batch, queries)), weights.unflatten(0, (batch, queries))
