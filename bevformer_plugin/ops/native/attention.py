"""Multi-scale deformable attention in C++ for CPUs."""

import ctypes
from collections.abc import Callable
from itertools import accumulate

import torch
from torch import Tensor

from bevformer_plugin.ops.attention_arguments import rows_of_maps

from .library import built_library, load_library


def supports(device: str, dtype: torch.dtype) -> bool:
    """Tell whether the operator can compute: on CPUs if it can be built; half precision is computed in float32."""
    return device == 'cpu' and dtype in (torch.float32, torch.bfloat16, torch.float16) and load_library() is not None


def forward(
    value: Tensor, shapes: list[list[int]], sampling_locations: Tensor, attention_weights: Tensor, lengths: Tensor
) -> Tensor:
    """Compute the output (R, heads * C).

    The arguments are those of :func:`.multi_scale_deformable_attention.ragged_deformable_attention`, the shapes as
    numbers.
    """
    tensors = [tensor.float().contiguous() for tensor in (value, sampling_locations, attention_weights)]
    output = tensors[0].new_empty(len(sampling_locations), value.shape[2] * value.shape[3])
    sizes = [*value.shape, *attention_weights.shape[2:]]
    _call(built_library().msda_forward, [*tensors, output], shapes, lengths, len(output), sizes)
    return output.to(value.dtype)


def backward(
    grad_output: Tensor,
    value: Tensor,
    shapes: list[list[int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
    lengths: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of value, locations and weights."""
    tensors = [tensor.float().contiguous() for tensor in (grad_output, value, sampling_locations, attention_weights)]
    grads = [torch.zeros_like(tensors[1]), torch.empty_like(tensors[2]), torch.empty_like(tensors[3])]
    sizes = [*value.shape, *attention_weights.shape[2:]]
    _call(built_library().msda_backward, [*tensors, *grads], shapes, lengths, len(grad_output), sizes)
    return grads[0].to(value.dtype), grads[1].to(value.dtype), grads[2].to(value.dtype)


def _call(
    function: Callable[..., None],
    tensors: list[Tensor],
    shapes: list[list[int]],
    lengths: Tensor,
    rows: int,
    sizes: list[int],
) -> None:
    """Call a function of the library with the addresses of its arrays and the sizes of the tensors.

    The arrays are the shapes of the levels, the first row of every list, and the tensors.
    """
    levels = torch.tensor(shapes, dtype=torch.int64)
    first_rows = torch.tensor([0, *accumulate(rows_of_maps(lengths, rows))], dtype=torch.int64)
    pointers = [tensor.data_ptr() for tensor in (levels, first_rows, *tensors)]
    function(*map(ctypes.c_void_p, pointers), *map(ctypes.c_int64, sizes))
