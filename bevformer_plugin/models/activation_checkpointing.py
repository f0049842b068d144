"""Activations that are computed again in the backward pass instead of being kept."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint


def checkpoint_activations(stage: nn.Module) -> None:
    """Recompute a module in the backward pass, so that only its inputs stay in memory (arXiv 1604.06174).

    Gradients, random numbers and the statistics of batch normalisation are the same as without. Where there will be no
    backward pass, nothing changes.
    """
    stage.forward = partial(_forward, stage, stage.forward)


def _forward(stage: nn.Module, forward: Callable[..., Tensor], *inputs: object) -> Tensor:
    """Run the stage's own ``forward``, checkpointed where gradients are asked for."""
    if not torch.is_grad_enabled():
        return forward(*inputs)
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=partial(_contexts, stage))


def _contexts(stage: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    """Make the contexts of the forward pass and of its repetition in the backward pass."""
    return nullcontext(), _statistics_stay(stage)


@contextmanager
def _statistics_stay(stage: nn.Module) -> Iterator[None]:
    """Keep batch normalisation from counting one batch twice."""
    counting = [
        (norm, norm.momentum, norm.num_batches_tracked) for norm in stage.modules() if isinstance(norm, _NormBase)
    ]
    for norm, _, _ in counting:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, momentum, num_batches_tracked in counting:
            norm.momentum, norm.num_batches_tracked = momentum, num_batches_tracked
