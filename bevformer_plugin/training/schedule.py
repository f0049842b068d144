"""Schedules that start anew in the middle of a run."""

from copy import deepcopy

import torch
from mmengine.optim import _ParamScheduler


class FreshSchedule:
    """Optimizer settings and schedules as they are built, kept while a checkpoint's are loaded over them.

    Args:
        optimizer: before anything is loaded.
        schedulers: of its settings.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, schedulers: list[_ParamScheduler]) -> None:
        self.groups = [
            {key: value for key, value in group.items() if key != 'params'} for group in optimizer.param_groups
        ]
        self.states = [deepcopy(scheduler.state_dict()) for scheduler in schedulers]

    def restore(self, optimizer: torch.optim.Optimizer, schedulers: list[_ParamScheduler]) -> None:
        """Take everything but the optimizer's moments back to the beginning."""
        for group, fresh in zip(optimizer.param_groups, self.groups, strict=True):
            group.update(fresh)
        for scheduler, state in zip(schedulers, self.states, strict=True):
            scheduler.load_state_dict(state)


def advance(schedulers: list[_ParamScheduler], batches: int, counted: int, batches_per_epoch: int) -> None:
    """Step schedules from the beginning to where a run that was planned with them would have brought them.

    Args:
        schedulers: at their beginning.
        batches: that the run has trained on.
        counted: by how many of them schedules of iterations were stepped.
        batches_per_epoch: schedules of epochs are stepped after each so many.
    """
    for scheduler in schedulers:
        scheduler.optimizer._global_step = 0  # where MMEngine counts, to warn of schedules ahead of the optimizer
    for batch in range(1, batches + 1):
        for scheduler in schedulers:
            if not scheduler.by_epoch and batch <= counted:
                scheduler.step()
        if batch % batches_per_epoch == 0:
            for scheduler in schedulers:
                if scheduler.by_epoch:
                    scheduler.step()


def ended(schedulers: list[_ParamScheduler]) -> str:
    """A remark for the log if no schedule will change anything any more; empty otherwise."""
    if schedulers and all(scheduler._global_step >= scheduler.end for scheduler in schedulers):
        return (
            ', and in all others, as every schedule has ended: --restart-schedule takes a longer one from the config'
        )
    return ''
