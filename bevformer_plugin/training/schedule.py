"""Restarting learning rate schedules in the middle of a run."""

from copy import deepcopy

import torch
from mmengine.optim import _ParamScheduler
from mmengine.optim.scheduler.param_scheduler import INF


class FreshSchedule:
    """A copy of freshly built optimizer settings and schedules, to restore after a checkpoint was loaded over them.

    Args:
        optimizer: the optimizer, before anything is loaded into it.
        schedulers: the schedules of its settings.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, schedulers: list[_ParamScheduler]) -> None:
        self.groups = [
            {key: value for key, value in group.items() if key != 'params'} for group in optimizer.param_groups
        ]
        self.states = [deepcopy(scheduler.state_dict()) for scheduler in schedulers]

    def restore(self, optimizer: torch.optim.Optimizer, schedulers: list[_ParamScheduler]) -> None:
        """Reset optimizer settings and schedules to the copy; the optimizer keeps its moments."""
        for group, fresh in zip(optimizer.param_groups, self.groups, strict=True):
            group.update(fresh)
        for scheduler, state in zip(schedulers, self.states, strict=True):
            scheduler.load_state_dict(state)


def advance(schedulers: list[_ParamScheduler], batches: int, counted: int, batches_per_epoch: int) -> None:
    """Step schedules from their beginning to where they would be in a run that had them from the start.

    Args:
        schedulers: the schedules, at their beginning.
        batches: number of batches that the run has trained on.
        counted: number of steps that schedules of iterations have taken in these batches.
        batches_per_epoch: number of batches after which schedules of epochs are stepped.
    """
    for scheduler in schedulers:
        # MMEngine counts the optimizer's steps in this attribute, and warns if a schedule is ahead of them.
        setattr(scheduler.optimizer, '_global_step', 0)  # noqa: B010
    for batch in range(1, batches + 1):
        for scheduler in schedulers:
            if not scheduler.by_epoch and batch <= counted:
                scheduler.step()
        if batch % batches_per_epoch == 0:
            for scheduler in schedulers:
                if scheduler.by_epoch:
                    scheduler.step()


def beyond_training(schedulers: list[_ParamScheduler], epochs: int, batches_per_epoch: int) -> list[str]:
    """Remark on schedules, or steps of them, that lie beyond the end of the training and thus do not happen.

    Args:
        schedulers: the schedules, in the order of ``param_scheduler``.
        epochs: of the training.
        batches_per_epoch: batches of a process.
    """
    remarks = []
    for number, scheduler in enumerate(schedulers):
        last, unit = (epochs, 'epoch') if scheduler.by_epoch else (epochs * batches_per_epoch, 'iteration')
        what = f'param_scheduler.{number} ({type(scheduler).__name__})'
        missed = sorted(step for step in getattr(scheduler, 'milestones', ()) if step >= last)
        if scheduler.begin >= last:
            remarks.append(f'{what} begins at {unit} {scheduler.begin}, the training ends at {last}: it has no effect')
        elif missed:
            steps = ', '.join(map(str, missed))
            remarks.append(f'{what} steps at {unit} {steps}, the training ends at {last}: this does not happen')
        elif last < scheduler.end < INF:
            remarks.append(f'{what} goes to {unit} {scheduler.end}, the training ends at {last}, before it is done')
    return remarks


def ended(schedulers: list[_ParamScheduler]) -> str:
    """Return the end of a line for the log that says that every schedule has ended; empty if one has not."""
    if schedulers and all(scheduler._global_step >= scheduler.end for scheduler in schedulers):
        return (
            ', and in all others, as every schedule has ended: --restart-schedule takes a longer one from the config'
        )
    return ''
