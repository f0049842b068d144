"""What passes through a module of a network while a test runs it."""

import inspect
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class ModuleCall:
    """One forward pass of a module.

    Attributes:
        inputs: arguments of ``forward`` by their names, however they were given; those left out are not in it.
        output: what ``forward`` returned.
    """

    inputs: dict[str, Any]
    output: Any


def record_calls(module: nn.Module) -> list[ModuleCall]:
    """Return a list to which every later forward pass of the module is added."""
    signature = inspect.signature(module.forward)
    calls: list[ModuleCall] = []

    def keep(_: nn.Module, positional: tuple, named: dict[str, Any], output: object) -> None:
        calls.append(ModuleCall(dict(signature.bind(*positional, **named).arguments), output))

    module.register_forward_hook(keep, with_kwargs=True)
    return calls
