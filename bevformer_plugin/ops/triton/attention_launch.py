"""The functions that launch the Triton kernels of multi-scale deformable attention."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# Triton is not installed beside torch for CPUs, and its types are then unknown.

from functools import lru_cache

import torch
import triton
from torch import Tensor

from bevformer_plugin.ops.attention_arguments import rows_of_maps

from .attention_kernels import backward_kernel, forward_kernel

ELEMENTS = 1024  # rows times channels of a program, which is a few registers for each thread of its four warps


def forward(
    value: Tensor, shapes: list[list[int]], sampling_locations: Tensor, attention_weights: Tensor, lengths: Tensor
) -> Tensor:
    """Compute the output (R, heads * C).

    The arguments are those of :func:`..multi_scale_deformable_attention.ragged_deformable_attention`, the shapes as
    numbers.
    """
    tensors = [tensor.contiguous() for tensor in (value, sampling_locations, attention_weights)]
    output = value.new_empty(len(sampling_locations), value.shape[2] * value.shape[3])
    _launch(forward_kernel, [*tensors, output], value, shapes, attention_weights, lengths)
    return output


def backward(
    grad_output: Tensor,
    value: Tensor,
    shapes: list[list[int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
    lengths: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of value, locations and weights."""
    tensors = [tensor.contiguous() for tensor in (grad_output, value, sampling_locations, attention_weights)]
    grad_value = torch.zeros_like(
        tensors[1], dtype=torch.float32
    )  # many samples add to one position, which half precision would round away
    grad_locations, grad_weights = torch.empty_like(tensors[2]), torch.empty_like(tensors[3])
    grads = [grad_value, grad_locations, grad_weights]
    _launch(backward_kernel, [*tensors, *grads], value, shapes, attention_weights, lengths)
    return grad_value.to(value.dtype), grad_locations, grad_weights


def _launch(
    kernel: triton.JITFunction,
    tensors: list[Tensor],
    value: Tensor,
    shapes: list[list[int]],
    attention_weights: Tensor,
    lengths: Tensor,
) -> None:
    """Launch a program for every block of rows and every head."""
    (maps, positions, heads, channels), (rows, _, levels, points) = value.shape, attention_weights.shape
    if rows == 0:
        return
    device = value.device
    if lengths.device.type == 'cpu':
        rows_of_maps(lengths, rows)
    # Lengths on a GPU are not checked, since that would wait for it; a search stays inside the maps for any lengths.
    row_map = torch.searchsorted(
        lengths.to(device).cumsum(0), torch.arange(rows, device=device), right=True, out_int32=True
    ).clamp_(max=maps - 1)
    block_channels = triton.next_power_of_2(channels)
    block_rows = max(1, ELEMENTS // block_channels)
    grid = triton.cdiv(rows, block_rows), heads
    with torch.cuda.device_of(value):
        kernel[grid](
            *tensors,
            row_map,
            _levels(tuple(map(tuple, shapes)), device),
            rows,
            positions,
            heads,
            channels,
            levels,
            points,
            BLOCK_ROWS=block_rows,
            BLOCK_CHANNELS=block_channels,
        )


@lru_cache(maxsize=64)
def _levels(shapes: tuple[tuple[int, int], ...], device: torch.device) -> Tensor:
    """Return (L, 3) height, width and first position of each level; cached, since copying waits for the device."""
    starts, rows = 0, []
    for height, width in shapes:
        rows.append((height, width, starts))
        starts += height * width
    return torch.tensor(rows, dtype=torch.int32, device=device)
