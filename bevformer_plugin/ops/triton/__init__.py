"""Multi-scale deformable attention in Triton for CUDA GPUs: float32, bfloat16 and float16, summed in float32."""

import importlib.util
import os

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def supports(device: str, dtype: torch.dtype) -> bool:
    """Tell whether Triton can compute: on CUDA GPUs, and on CPUs in its interpreter (``TRITON_INTERPRET=1``)."""
    runs_on_device = device == 'cuda' or (device == 'cpu' and os.environ.get('TRITON_INTERPRET') == '1')
    return runs_on_device and dtype in DTYPES and importlib.util.find_spec('triton') is not None


def forward(
    value: Tensor, shapes: list[list[int]], sampling_locations: Tensor, attention_weights: Tensor, lengths: Tensor
) -> Tensor:
    """Compute the output (R, heads * C).

    The arguments are those of :func:`..multi_scale_deformable_attention.ragged_deformable_attention`, the shapes as
    numbers.
    """
    from .launch import forward as launch  # imported here, since only torch for GPUs installs Triton

    return launch(value, shapes, sampling_locations, attention_weights, lengths)


def backward(
    grad_output: Tensor,
    value: Tensor,
    shapes: list[list[int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
    lengths: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of value, locations and weights."""
    from .launch import backward as launch

    return launch(grad_output, value, shapes, sampling_locations, attention_weights, lengths)
