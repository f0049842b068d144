"""Search for the first tensor that is NaN or infinite."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


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


def not_finite_gradients(module: nn.Module) -> list[str]:
    """List the names of the parameters whose gradients are not finite."""
    return [
        name
        for name, parameter in module.named_parameters()
        if parameter.grad is not None and not parameter.grad.isfinite().all()
    ]
