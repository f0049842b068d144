"""Who computes multi-scale deformable attention: one backend for each device and type, chosen or told."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from mmengine.logging import print_log
from torch import Tensor

from bevformer_plugin.errors import InputError

from . import mmcv_operator, native, reference, triton

VARIABLE = 'BEVFORMER_ATTENTION_BACKEND'


@dataclass(frozen=True)
class Backend:
    """A way to compute the operator.

    Attributes:
        supports: whether it can run for a value of this device type and dtype on this machine.
        forward: takes what :func:`.reference.forward` takes.
        backward: takes what :func:`.reference.backward` takes.
    """

    supports: Callable[[str, torch.dtype], bool]
    forward: Callable[..., Tensor]
    backward: Callable[..., tuple[Tensor, Tensor, Tensor]]


# The first that supports a value computes it.
BACKENDS = {
    'native': Backend(native.supports, native.forward, native.backward),
    'triton': Backend(triton.supports, triton.forward, triton.backward),
    'mmcv': Backend(mmcv_operator.supports, mmcv_operator.forward, mmcv_operator.backward),
    'reference': Backend(lambda device, dtype: True, reference.forward, reference.backward),
}

_chosen: str | None = None


def set_attention_backend(name: str | None) -> None:
    """Compute with one backend only; None leaves it to the environment variable, and then to device and type.

    Raises:
        InputError: if there is no backend of that name.
    """
    global _chosen
    if name is not None:
        _check_name(name)
    _chosen = name


def _check_name(name: str) -> None:
    if name not in BACKENDS:
        raise InputError(f'no attention backend {name!r}: choose from {", ".join(BACKENDS)}')


def backend_name(value: Tensor) -> str:
    """Name of the backend that computes for a value like this.

    Raises:
        InputError: if the one asked for does not exist, or cannot on this device, type or machine.
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
    """Say once who computes what."""
    print_log(f'deformable attention on {device} in {dtype}: {name} backend', logger='current')
