"""Where the kernels in Triton can run, and in which precision."""

import importlib.util
import os

import torch

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def supports(device: str, dtype: torch.dtype) -> bool:
    """Tell whether Triton can compute: on CUDA GPUs, and on CPUs in its interpreter (``TRITON_INTERPRET=1``)."""
    runs_on_device = device == 'cuda' or (device == 'cpu' and os.environ.get('TRITON_INTERPRET') == '1')
    return runs_on_device and dtype in DTYPES and importlib.util.find_spec('triton') is not None


def convolves_in_tf32() -> bool:
    """Tell whether torch convolves float32 in TensorFloat-32, which ``torch.backends.cudnn`` sets."""
    # Where torch has this setting, reading the older allow_tf32 raises an error once somebody has set this one.
    convolution = getattr(torch.backends.cudnn, 'conv', None)
    return torch.backends.cudnn.allow_tf32 if convolution is None else convolution.fp32_precision == 'tf32'
