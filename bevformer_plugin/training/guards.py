"""Finding the first tensor that is NaN or infinite."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


def first_not_finite(detector: nn.Module, data: dict) -> str:
    """Name the parameter that is not finite, or else the innermost module that is the first to give such an output.

    Args:
        detector: whose loss on ``data`` was not finite; call it with the generators seeded as they were.
        data: preprocessed batch.
    """
    for name, parameter in detector.named_parameters():
        if not parameter.isfinite().all():
            return f'parameter {name}'
    found: list[str] = []

    def note(name: str, module: nn.Module, inputs: tuple, output: object) -> None:
        if not found and not all(tensor.isfinite().all() for tensor in _tensors(output)):
            found.append(name)

    hooks = [module.register_forward_hook(partial(note, name)) for name, module in detector.named_modules() if name]
    try:
        with torch.no_grad(), suppress(FloatingPointError):
            detector(**data, mode='loss')
    finally:
        for hook in hooks:
            hook.remove()
    return f'the output of {found[0]}' if found else 'a loss'


def _tensors(value: object) -> Iterator[Tensor]:
    """All tensors in nested containers."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(value.values())
    elif isinstance(value, Iterable) and not isinstance(value, str):
        for item in value:
            yield from _tensors(item)


def gradient_norm(module: nn.Module) -> Tensor:
    """The 2-norm of all gradients together."""
    norm = torch.nn.utils.get_total_norm(
        [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    )
    return norm.full_tensor() if isinstance(norm, DTensor) else norm  # of shards


def not_finite_gradients(module: nn.Module) -> list[str]:
    """Names of the parameters whose gradients are not finite."""
    return [
        name
        for name, parameter in module.named_parameters()
        if parameter.grad is not None and not parameter.grad.isfinite().all()
    ]
