"""Where the kernels in Triton can run."""

import importlib.util
import os

import torch

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def supports(device: str, dtype: torch.dtype) -> bool:
    """Tell whether Triton can compute: on CUDA GPUs, and on CPUs in its interpreter (``TRITON_INTERPRET=1``)."""
    runs_on_device = device == 'cuda' or (device == 'cpu' and os.environ.get('TRITON_INTERPRET') == '1')
    return runs_on_device and dtype in DTYPES and importlib.util.find_spec('triton') is not None
