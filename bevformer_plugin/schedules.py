"""Schedules of the learning rate that MMEngine does not have."""

from mmdet3d.registry import PARAM_SCHEDULERS
from mmengine.optim import BaseOptimWrapper
from mmengine.optim.scheduler import MultiStepLR
from torch.optim import Optimizer

from bevformer_plugin.errors import InputError


@PARAM_SCHEDULERS.register_module()
class StepBeforeEndLR(MultiStepLR):
    """Multiplies the learning rate once, some epochs before training ends, however long it is.

    Args:
        optimizer: the optimizer.
        epochs_before_end: epochs that are trained at the lower rate.
        gamma: by which the rate is multiplied.
        end: epochs of the training, which engines set.
        begin: first epoch that counts.
        last_step: index of the last step.
        by_epoch: always True.
        verbose: print every change.

    Raises:
        InputError: if training does not last longer than ``epochs_before_end``, or steps are not counted by epochs.
    """

    def __init__(
        self,
        optimizer: Optimizer | BaseOptimWrapper,
        epochs_before_end: int,
        end: int,
        gamma: float = 0.1,
        begin: int = 0,
        last_step: int = -1,
        by_epoch: bool = True,
        verbose: bool = False,
    ) -> None:
        if not by_epoch:
            raise InputError('StepBeforeEndLR counts epochs: leave by_epoch out')
        if not 0 < epochs_before_end < end:
            raise InputError(
                f'epochs_before_end={epochs_before_end} does not lie within the {end} epochs of the training: set it '
                'in param_scheduler to fewer, or train longer'
            )
        super().__init__(
            optimizer,
            milestones=[end - epochs_before_end],
            gamma=gamma,
            begin=begin,
            end=end,
            last_step=last_step,
            verbose=verbose,
        )
