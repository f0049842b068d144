"""The choice of one of an operator's backends: by device and type, or by the user."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from mmengine.logging import print_log
from torch import Tensor

from bevformer_plugin.errors import InputError


@dataclass(frozen=True)
class Backend:
    """One implementation of an operator.

    Attributes:
        supports: tells whether it can compute for a tensor of a device type and dtype on this machine.
        forward: computes the output, from the arguments of the definition's ``forward``.
        backward: computes the gradients, from the arguments of the definition's ``backward``.
    """

    supports: Callable[[str, torch.dtype], bool]
    forward: Callable[..., Tensor]
    backward: Callable[..., tuple[Tensor, ...]]


@dataclass
class BackendChoice:
    """The backends of an operator, and which of them the user has chosen.

    Args:
        operator: its name in messages, as in 'no attention backend'.
        subject: its name in the log, as in 'deformable attention on cpu'.
        variable: environment variable by which users choose.
        backends: in order of preference: the first backend that supports a tensor is used.
    """

    operator: str
    subject: str
    variable: str
    backends: Mapping[str, Backend]
    _chosen: str | None = None
    _reported: set[tuple[str, str, torch.dtype]] = field(default_factory=set)

    def choose(self, name: str | None) -> None:
        """Choose one backend for all calls; None restores the choice by environment variable, or by device and type.

        Raises:
            InputError: if the name is unknown.
        """
        if name is not None:
            self._check_name(name)
        self._chosen = name

    def _check_name(self, name: str) -> None:
        if name not in self.backends:
            raise InputError(f'no {self.operator} backend {name!r}: choose from {", ".join(self.backends)}')

    def name_for(self, tensor: Tensor) -> str:
        """Name the backend that computes for a tensor with this device and type.

        Raises:
            InputError: if the chosen backend is unknown, or cannot compute on this device, type or machine.
        """
        device, dtype, wanted = tensor.device.type, tensor.dtype, self._chosen or os.environ.get(self.variable)
        if wanted:
            self._check_name(wanted)
            if not self.backends[wanted].supports(device, dtype):
                raise InputError(
                    f'{self.operator} backend {wanted!r} cannot compute {dtype} on {device} here; unset '
                    f'{self.variable}, or choose another'
                )
            name = wanted
        else:
            name = next(name for name, backend in self.backends.items() if backend.supports(device, dtype))
        self._report(name, device, dtype)
        return name

    def backend_for(self, tensor: Tensor) -> Backend:
        """Return the backend that :meth:`name_for` names."""
        return self.backends[self.name_for(tensor)]

    def _report(self, name: str, device: str, dtype: torch.dtype) -> None:
        """Log once for each device and type which backend computes."""
        if (name, device, dtype) not in self._reported:
            self._reported.add((name, device, dtype))
            print_log(f'{self.subject} on {device} in {dtype}: {name} backend', logger='current')
