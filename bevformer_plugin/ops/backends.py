"""The backends of multi-scale deformable attention, chosen by device and type or by the user."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from mmengine.logging import print_log
from torch import Tensor

from bevformer_plugin.errors import InputError

from . import mmcv_operator, reference, triton
from .native import attention as native

VARIABLE = 'BEVFORMER_ATTENTION_BACKEND'


@dataclass(frozen=True)
class Backend:
    """One implementation of the operator.

    Attributes:
        supports: tells whether it can compute for a value of a device type and dtype on this machine.
        forward: computes the output, from the arguments of :func:`.reference.forward`.
        backward: computes the gradients, from the arguments of :func:`.reference.backward`.
    """

    supports: Callable[[str, torch.dtype], bool]
    forward: Callable[..., Tensor]
    backward: Callable[..., tuple[Tensor, Tensor, Tensor]]


# In order of preference: the first backend that supports a value is used.
BACKENDS = {
    'native': Backend(native.supports, native.forward, native.backward),
    'triton': Backend(triton.supports, triton.forward, triton.backward),
    'mmcv': Backend(mmcv_operator.supports, mmcv_operator.forward, mmcv_operator.backward),
    'reference': Backend(lambda device, dtype: True, reference.forward, reference.backward),
}

_chosen: str | None = None


def set_attention_backend(name: str | None) -> None:
    """Choose one backend for all calls; None restores the choice by environment variable, or else by device and type.

    Raises:
        InputError: if the name is unknown.
    """
    global _chosen
    if name is not None:
        _check_name(name)
    _chosen = name


def _check_name(name: str) -> None:
    if name not in BACKENDS:
        raise InputError(f'no attention backend {name!r}: choose from {", ".join(BACKENDS)}')


def backend_name(value: Tensor) -> str:
    """Name the backend that computes for a value with this device and type.

    Raises:
        InputError: if the chosen backend is unknown, or cannot compute on this device, type or machine.
    """
    device, dtype, wanted = value.device.type, value.dtype, _chosen or os.environ.get(VARIABLE)
    if wanted:
        _check_name(wanted)
        if not BACKENDS[wanted].supports(device, dtype):
            raise InputError(
                f'attention backend {wanted!r} cannot compute {dtype} on {device} here; unset '
                f'{VARIABLE}, or choose another'
            )
        name = wanted
    else:
        name = next(name for name, backend in BACKENDS.items() if backend.supports(device, dtype))
    _report(name, device, dtype)
    return name


@cache
def _report(name: str, device: str, dtype: torch.dtype) -> None:
    """Log once for each device and type which backend computes."""
    print_log(f'deformable attention on {device} in {dtype}: {name} backend', logger='current')
