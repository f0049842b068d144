"""Constant tensors on any device, made without waiting for a GPU."""

from collections.abc import Sequence

import torch
from torch import Tensor


def constants(values: Sequence[float], device: torch.device | None = None) -> Tensor:
    """Make a float32 tensor (n,) of numbers on a device, without waiting for what the device computes.

    ``torch.tensor(values, device=...)`` and ``new_tensor`` copy to a GPU only after everything before is computed.
    """
    return torch.tensor(values, dtype=torch.float32).to(device, non_blocking=True)
