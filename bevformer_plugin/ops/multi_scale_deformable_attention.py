"""Multi-scale deformable attention (Deformable DETR, equation 3; the sampling behind BEVFormer's equation 2)."""
import torch
from torch import Tensor
from torch.nn import functional as F

from .native import NativeMultiScaleDeformableAttention, load_library


def multi_scale_deformable_attention(value: Tensor, spatial_shapes: Tensor, sampling_locations: Tensor,
                                     attention_weights: Tensor) -> Tensor:
    """Sample every level at every location, bilinearly with zeros outside, and sum with the attention weights.

    Args:
        value: (B, S, heads, C) with S the sum of h * w over the levels.
        spatial_shapes: (L, 2) integer (h, w) of each level.
        sampling_locations: (B, Q, heads, L, P, 2) in (x, y), fractions of the level's width and height.
        attention_weights: (B, Q, heads, L, P).

    Returns:
        (B, Q, heads * C).

    Raises:
        ValueError: if S does not match the spatial shapes.
    """
    num_values, shapes = value.shape[1], spatial_shapes.tolist()
    if sum(h * w for h, w in shapes) != num_values:
        raise ValueError(f'value holds {num_values} positions, the spatial shapes {shapes} need '
                         f'{sum(h * w for h, w in shapes)}')
    tensors = (value, sampling_locations, attention_weights)
    if all(t.device.type == 'cpu' and t.dtype == torch.float32 for t in tensors) and load_library() is not None:
        return NativeMultiScaleDeformableAttention.apply(value, spatial_shapes.long(), *tensors[1:])
    return reference(value, shapes, sampling_locations, attention_weights)


def reference(value: Tensor, shapes: list[list[int]], sampling_locations: Tensor,
              attention_weights: Tensor) -> Tensor:
    """The operator in plain PyTorch, for every device and type; arguments as above."""
    batch, _, heads, channels = value.shape
    queries = sampling_locations.shape[1]
    # Queries last: products and sums over points then run along contiguous rows.
    grids = (2 * sampling_locations - 1).permute(0, 2, 3, 4, 1, 5).flatten(0, 1)  # (B*heads)xLxPxQx2
    weights = attention_weights.permute(0, 2, 3, 4, 1).flatten(0, 1).unsqueeze(1)  # (B*heads)x1xLxPxQ
    levels = value.permute(0, 2, 3, 1).flatten(0, 1).split([h * w for h, w in shapes], dim=2)  # (B*heads)xCx(h*w) each
    output = 0
    for level, (level_map, shape) in enumerate(zip(levels, shapes, strict=True)):
        sampled = F.grid_sample(level_map.unflatten(2, shape), grids[:, level], mode='bilinear', padding_mode='zeros',
                                align_corners=False)  # (B*heads)xCxPxQ
        output = output + (sampled * weights[:, :, level]).sum(2)  # (B*heads)xCxQ
    return output.view(batch, heads * channels, queries).transpose(1, 2).contiguous()
