"""Lightning callbacks of a training run: reports, checkpoints, and the plan of validations."""

import os
import signal
import time
from math import ceil
from pathlib import Path
from types import FrameType

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint, ModelCheckpoint
from mmengine.logging import print_log
from torch.distributed import ReduceOp

from bevformer_plugin.weights import read_checkpoint

from .checkpoints import best_checkpoint_name
from .detector_module import DetectorModule
from .interrupts import SIGNAL_NAMES
from .work_dir import drop_replaced


class LogEveryEpoch(Callback):
    """Logs the losses of at least one step per epoch, even where epochs are shorter than the logging interval."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Shorten the logging interval to the steps of an epoch if it is longer."""
        steps = ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        # Lightning's Trainer has this attribute, but does not declare it.
        interval = trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        trainer.log_every_n_steps = min(interval, steps)  # pyright: ignore[reportAttributeAccessIssue]


class EpochReport(Callback):
    """Prints a line per epoch: mean loss, learning rate, seconds per step, share of waiting for data, time left.

    Throughput and the time of waiting for data are logged with the losses, too.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clocks of an epoch, which may be the rest of a resumed one."""
        self.losses: list[float] = []
        self.waited = 0.0
        self.start = self.batch_end = time.perf_counter()

    on_train_epoch_start = on_train_start

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: dict, batch_idx: int
    ) -> None:
        """Measure how long the step waited for this batch."""
        self.batch_start = time.perf_counter()
        self.waited += self.batch_start - self.batch_end

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: dict, batch: dict, batch_idx: int
    ) -> None:
        """Keep the loss for the mean of the epoch, and log the times of this step."""
        # Lightning divides the loss by the number of accumulated batches before it hands it to callbacks.
        self.losses.append(float(outputs['loss']) * trainer.accumulate_grad_batches)
        previous_end, self.batch_end = self.batch_end, time.perf_counter()
        size = len(batch['data_samples'])
        pl_module.log_dict(
            {
                'train/data_time': self.batch_start - previous_end,
                'train/samples_per_second': size * trainer.world_size / (self.batch_end - previous_end),
            },
            batch_size=size,
        )

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the line of the epoch that has ended."""
        if not trainer.is_global_zero or not self.losses:
            return
        assert trainer.max_epochs is not None and isinstance(pl_module, DetectorModule)
        seconds = self.batch_end - self.start
        seconds_left = seconds * (trainer.max_epochs - trainer.current_epoch - 1)
        print_log(
            f'epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  loss {sum(self.losses) / len(self.losses):.3f}  '
            f'lr {pl_module.current_learning_rate():.2e}  {seconds / len(self.losses):.2f} s/step '
            f'({100 * self.waited / seconds:.0f}% data)  {seconds_left / 60:.1f} min left',
            logger='current',
        )


class ValidationPlan(Callback):
    """Validates after the same epochs as MMEngine's Runner would.

    Args:
        interval: number of epochs from one validation to the next; the last epoch is always validated.
        begin: the first epoch, counted from 1, that may be validated.
    """

    def __init__(self, interval: int, begin: int) -> None:
        self.interval = interval
        self.begin = begin

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Decide whether the epoch that starts, or that a resumed run continues, will be validated."""
        assert trainer.max_epochs is not None
        epoch = trainer.current_epoch + 1
        due = epoch >= self.begin and (epoch % self.interval == 0 or epoch == trainer.max_epochs)
        # Lightning validates after an epoch if this number divides the epoch's.
        trainer.check_val_every_n_epoch = 1 if due else trainer.max_epochs + 1

    on_train_epoch_start = on_train_start


class BestCheckpoint(ModelCheckpoint):
    """Keeps the checkpoint with the best score. A resumed run has to beat that score, even if its folder was moved.

    The file is named after the score, see :func:`.checkpoints.best_checkpoint_name`.

    Args:
        folder: folder of the checkpoint.
        score: name of the score, of which more is better.
    """

    def __init__(self, folder: Path, score: str) -> None:
        self.name = best_checkpoint_name(score)
        super().__init__(
            folder,
            filename=self.name.removesuffix('.ckpt'),
            monitor=score,
            mode='max',
            enable_version_counter=False,
            save_on_train_epoch_end=False,
        )

    def load_state_dict(self, state_dict: dict) -> None:
        """Take over the best score if its checkpoint is in this folder, even if the folder has been renamed since."""
        assert self.dirpath is not None
        path = Path(self.dirpath, self.name)
        if not path.is_file():
            return
        if state_dict['dirpath'] != self.dirpath:
            state_dict = read_checkpoint(str(path))['callbacks'][self.state_key]
            score = state_dict['best_model_score']
            state_dict = {
                **state_dict,
                'dirpath': self.dirpath,
                'best_model_path': str(path),
                'kth_best_model_path': str(path),
                'best_k_models': {str(path): score},
            }
        super().load_state_dict(state_dict)


class LastCheckpoint(Checkpoint):
    """Keeps one checkpoint; a run that is resumed from it continues as if it had never stopped.

    The checkpoint is written at the end of epochs, before validation, and every ``steps`` optimizer steps. After
    Ctrl-C or SIGTERM to any process, all processes finish their step, the checkpoint is written, and the run ends with
    exit status 130 or 143. During validation a signal ends the run at once, and the resumed run validates again. A
    second Ctrl-C ends the process immediately.

    This replaces Lightning's own signal handlers. Lightning's handler of SIGTERM starts a collective operation
    wherever the signal reaches a process, which can cross with the collectives of the step, and it may stop between
    accumulated batches; on Ctrl-C Lightning writes no checkpoint.

    Args:
        path: file of the checkpoint.
        epochs: number of epochs from one writing to the next; the end of the last epoch always writes.
        steps: number of optimizer steps from one writing to the next within epochs; None writes at their ends only.
    """

    def __init__(self, path: Path, epochs: int = 1, steps: int | None = None) -> None:
        self.path = path
        self.epochs = epochs
        self.steps = steps
        self.signalled = 0  # the signal that this process has received, 0 for none
        self.stopping = 0  # the signal that all processes have agreed to stop for, 0 for none

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Install the signal handlers; Lightning puts the earlier ones back when the run ends."""
        is_first_process = trainer.is_global_zero

        def note(signum: int, frame: FrameType | None) -> None:
            self.signalled = signum
            if signum == signal.SIGINT:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                if is_first_process:
                    os.write(2, f'stopping after this step; Ctrl-C again loses what is not in {self.path}\n'.encode())

        for signum in SIGNAL_NAMES:
            signal.signal(signum, note)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: dict, batch_idx: int
    ) -> None:
        """Stop before this step if a signal came in the last one, whose losses have been logged only by now."""
        if self.stopping:
            self._stop(trainer, self.stopping)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: dict, batch: dict, batch_idx: int
    ) -> None:
        """Write the checkpoint if it is due, or if any process has received a signal to stop."""
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            return  # validation or the end of the epoch follows, and writes the checkpoint
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        signalled = torch.tensor(self.signalled, device=trainer.strategy.root_device)
        self.stopping = int(trainer.strategy.reduce(signalled, reduce_op=ReduceOp.MAX))
        if self.stopping or (self.steps and trainer.global_step % self.steps == 0):
            self._write(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the checkpoint, so that a run that is stopped in a long validation resumes with this validation."""
        self._write(trainer)

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: dict, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Stop this process at once, since processes that validate different numbers of batches cannot agree first."""
        if self.signalled:
            self._stop(trainer, self.signalled)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the checkpoint if it is due at the end of this epoch."""
        epoch = trainer.current_epoch + 1
        if epoch % self.epochs == 0 or epoch == trainer.max_epochs:
            self._write(trainer)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict) -> None:
        """Make a checkpoint written before validation look as if written in the first batch of the validation.

        Lightning starts a resumed run with the validation only in that case.
        """
        progress = checkpoint['loops']['fit_loop']['epoch_loop.val_loop.batch_progress']
        if trainer.validating and not progress['current']['ready']:
            progress['total'].update(ready=1, started=1)

    def _write(self, trainer: L.Trainer) -> None:
        trainer.save_checkpoint(self.path, weights_only=False)
        if trainer.is_global_zero:
            drop_replaced(self.path.parent)

    def _stop(self, trainer: L.Trainer, signum: int) -> None:
        if not trainer.is_global_zero:
            raise SystemExit(0)  # for any other status Lightning would kill the first process
        print_log(
            f'stopped by {SIGNAL_NAMES[signum]} after step {trainer.global_step}; --resume goes on with {self.path}',
            logger='current',
        )
        raise SystemExit(128 + signum)
