"""Multi-scale deformable attention through mmcv's compiled operator, for GPUs without Triton."""

import torch
from torch import Tensor

from .attention_arguments import rows_of_maps
from .mmcv_finder import is_compiled


def supports(device: str, dtype: torch.dtype) -> bool:
    """Tell whether mmcv can compute: on CUDA GPUs if mmcv is compiled, in float32 and float64.

    mmcv has no kernel for bfloat16, and its kernel for float16 rounds before it sums.
    """
    return device == 'cuda' and dtype in (torch.float32, torch.float64) and is_compiled()


def forward(
    value: Tensor, shapes: list[list[int]], sampling_locations: Tensor, attention_weights: Tensor, lengths: Tensor
) -> Tensor:
    """Compute the output (R, heads * C).

    The arguments are those of :func:`.multi_scale_deformable_attention.ragged_deformable_attention`, the shapes as
    numbers.
    """
    from mmcv.ops.multi_scale_deform_attn import ext_module

    levels = _levels(shapes, value.device)
    outputs = []
    for maps, *samples in _batches(lengths, value, sampling_locations, attention_weights):
        if samples[0].numel():  # the kernel fails on empty tensors
            output = ext_module.ms_deform_attn_forward(maps, *levels, *samples, im2col_step=len(maps))
            # The kernel skips samples outside and at NaN. Multiplying by 0 gives NaN for what is not finite, else 0.
            nan_or_zero = ((0 * samples[0]).sum(-1) * samples[1]).sum((-1, -2))
            outputs.append((output.unflatten(2, (maps.shape[2], -1)) + nan_or_zero[..., None]).flatten(2))
    return (
        torch.cat([output.flatten(0, 1) for output in outputs])
        if outputs
        else value.new_empty(0, value.shape[2] * value.shape[3])
    )


def backward(
    grad_output: Tensor,
    value: Tensor,
    shapes: list[list[int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
    lengths: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of value, locations and weights."""
    from mmcv.ops.multi_scale_deform_attn import ext_module

    levels = _levels(shapes, value.device)
    grads_of_values, grads_of_locations, grads_of_weights = [], [], []
    for maps, *samples, grad in _batches(lengths, value, sampling_locations, attention_weights, grad_output):
        grads = [torch.zeros_like(tensor) for tensor in (maps, *samples)]
        if grad.numel():
            ext_module.ms_deform_attn_backward(maps, *levels, *samples, grad, *grads, im2col_step=len(maps))
            heads = grad.unflatten(2, (maps.shape[2], -1))
            nan_or_zero = (0 * samples[0]).sum(-1) + (0 * heads).sum(-1)[..., None, None]
            grads[2] += nan_or_zero
            grads[1] += (nan_or_zero * samples[1]).unsqueeze(-1)
        grads_of_values.append(grads[0])
        grads_of_locations.append(grads[1].flatten(0, 1))
        grads_of_weights.append(grads[2].flatten(0, 1))
    return torch.cat(grads_of_values), torch.cat(grads_of_locations), torch.cat(grads_of_weights)


def _levels(shapes: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return height and width of each level, and its first position, as tensors on the device."""
    sizes = torch.tensor(shapes)
    positions = sizes.prod(1)
    return sizes.to(device), (positions.cumsum(0) - positions).to(device)


def _batches(lengths: Tensor, value: Tensor, *rows: Tensor) -> list[tuple[Tensor, ...]]:
    """Pair maps with the (B, Q, ...) part of each tensor of rows.

    Lists of the same length make one batch of all maps; else each map is a batch of its own.
    """
    counts = rows_of_maps(lengths, len(rows[0]))
    value, rows = value.contiguous(), tuple(tensor.contiguous() for tensor in rows)
    if len(set(counts)) == 1:
        return [(value, *(tensor.unflatten(0, (len(counts), -1)) for tensor in rows))]
    split = zip(*(tensor.split(counts) for tensor in rows), strict=True)
    return [(maps[None], *(tensor[None] for tensor in parts)) for maps, parts in zip(value, split, strict=True)]
