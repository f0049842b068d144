"""Search for the first tensor that is NaN or infinite."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from bevformer_plugin.errors import NotFiniteError

MOST_LEFT_OUT = 100  # a dynamic scale has fallen from 2**16 to 2**-84 by then


def first_not_finite(detector: nn.Module, data: dict) -> str:
    """Name the first parameter that is not finite, or else the innermost module with the first such output.

    The random number generators have to be in the state in which the loss was computed.

    Args:
        detector: a detector whose loss on ``data`` was not finite.
        data: the preprocessed batch.
    """
    for name, parameter in detector.named_parameters():
        if not parameter.isfinite().all():
            return f'parameter {name}'
    not_finite: list[str] = []

    def note(name: str, module: nn.Module, inputs: tuple, output: object) -> None:
        if not not_finite and not all(tensor.isfinite().all() for tensor in _tensors(output)):
            not_finite.append(name)

    hooks = [module.register_forward_hook(partial(note, name)) for name, module in detector.named_modules() if name]
    try:
        with torch.no_grad(), suppress(FloatingPointError):
            detector(**data, mode='loss')
    finally:
        for hook in hooks:
            hook.remove()
    return f'the output of {not_finite[0]}' if not_finite else 'a loss'


def _tensors(value: object) -> Iterator[Tensor]:
    """Yield all tensors in nested containers."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(value.values())
    elif isinstance(value, Iterable) and not isinstance(value, str):
        for item in value:
            yield from _tensors(item)


def gradient_norm(module: nn.Module) -> Tensor:
    """Compute the 2-norm of all gradients of a module together."""
    norm = torch.nn.utils.get_total_norm(
        [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    )
    return norm.full_tensor() if isinstance(norm, DTensor) else norm  # sharded weights give the norm as a DTensor


class LeftOutSteps:
    """Counts the steps in a row that a gradient scaler has left out, since their scaled gradients overflowed.

    A scaler finds its scale by leaving out a few; after many, nothing is learned and nothing else would say so.
    """

    def __init__(self) -> None:
        self.in_a_row = 0

    def note(self, norm: Tensor) -> None:
        """Count a step with this norm of its gradients.

        Raises:
            NotFiniteError: if it is one of too many in a row.
        """
        self.in_a_row = 0 if norm.isfinite() else self.in_a_row + 1
        if self.in_a_row == MOST_LEFT_OUT:
            raise NotFiniteError(
                f'the gradients of the last {MOST_LEFT_OUT} steps overflowed, and all of these steps were left out: '
                "lower a static optim_wrapper.loss_scale, take loss_scale='dynamic', or dtype='bfloat16'"
            )


def not_finite_gradients(module: nn.Module) -> list[str]:
    """List the names of the parameters whose gradients are not finite."""
    return [
        name
        for name, parameter in module.named_parameters()
        if parameter.grad is not None and not parameter.grad.isfinite().all()
    ]
