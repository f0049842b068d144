"""What a run does beside its steps: it reports, keeps its last checkpoint, and validates when it is due."""

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

from .checkpoints import BEST
from .interrupts import NAMES
from .work_dir import drop_replaced


class LogEveryEpoch(Callback):
    """Logs the losses of at least one step an epoch, also where epochs are shorter than the logging interval."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Shorten the interval to an epoch."""
        steps = ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        trainer.log_every_n_steps = min(trainer.log_every_n_steps, steps)


class EpochReport(Callback):
    """One line per epoch: mean loss, learning rate, seconds per step, share of it waiting for data, time left.

    Throughput and the wait for data are logged with the losses.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clocks."""
        self.losses: list[float] = []
        self.waited = 0.0
        self.start = self.batch_end = time.perf_counter()

    on_train_epoch_start = on_train_start

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: dict, batch_idx: int
    ) -> None:
        """Count the wait for this batch."""
        self.batch_start = time.perf_counter()
        self.waited += self.batch_start - self.batch_end

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: dict, batch: dict, batch_idx: int
    ) -> None:
        """Keep the loss, log the times."""
        # Lightning hands on the share of an optimizer step that the batch has.
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
        """Print the line."""
        if not trainer.is_global_zero or not self.losses:
            return
        seconds = self.batch_end - self.start
        left = seconds * (trainer.max_epochs - trainer.current_epoch - 1)
        print_log(
            f'epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  loss {sum(self.losses) / len(self.losses):.3f}  '
            f'lr {pl_module.current_learning_rate():.2e}  {seconds / len(self.losses):.2f} s/step '
            f'({100 * self.waited / seconds:.0f}% data)  {left / 60:.1f} min left',
            logger='current',
        )


class ValidationPlan(Callback):
    """Validates after the same epochs as MMEngine's Runner.

    Args:
        interval: epochs from one validation to the next; the last epoch is always validated.
        begin: the first epoch, counted from 1, that may be validated.
    """

    def __init__(self, interval: int, begin: int) -> None:
        self.interval = interval
        self.begin = begin

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Decide about the epoch that starts or goes on."""
        epoch = trainer.current_epoch + 1
        due = epoch >= self.begin and (epoch % self.interval == 0 or epoch == trainer.max_epochs)
        # Lightning asks whether the epoch's number can be divided by this.
        trainer.check_val_every_n_epoch = 1 if due else trainer.max_epochs + 1

    on_train_epoch_start = on_train_start


class BestCheckpoint(ModelCheckpoint):
    """Keeps the checkpoint with the best NDS; a resumed run has to beat it, also where its folder was moved.

    Args:
        folder: where to.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(
            folder,
            filename=Path(BEST).stem,
            monitor='nuscenes/NDS',
            mode='max',
            enable_version_counter=False,
            save_on_train_epoch_end=False,
        )

    def load_state_dict(self, state_dict: dict) -> None:
        """Take over the best score if its file is here; Lightning forgets it in a folder of another name."""
        path = Path(self.dirpath, BEST)
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
    """Keeps one checkpoint; a run resumed from it goes on as if it had never stopped.

    It is written at the end of epochs, before validation, and every ``steps`` optimizer steps. Ctrl-C or SIGTERM to
    any process lets all of them finish their step, writes it, and ends the run with exit status 130 or 143; in
    validation they end the run at once, and the resumed run validates again. A second Ctrl-C ends the process as it
    stands.

    Lightning's own handlers are replaced: that of SIGTERM enters a collective wherever the signal finds a process,
    which crosses with the collectives of the step, and it stops where gradients may have been accumulated only in
    part; for Ctrl-C it writes nothing.

    Args:
        path: where to.
        epochs: write at the end of every so many; the last epoch's end always counts.
        steps: write also every so many optimizer steps; None never.
    """

    def __init__(self, path: Path, epochs: int = 1, steps: int | None = None) -> None:
        self.path = path
        self.epochs = epochs
        self.steps = steps
        self.signalled = self.stopping = 0  # number of the signal

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen to signals; Lightning puts the earlier handlers back when the run ends."""
        says = trainer.is_global_zero

        def note(signum: int, frame: FrameType | None) -> None:
            self.signalled = signum
            if signum == signal.SIGINT:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                if says:
                    os.write(2, f'stopping after this step; Ctrl-C again loses what is not in {self.path}\n'.encode())

        for signum in NAMES:
            signal.signal(signum, note)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: dict, batch_idx: int
    ) -> None:
        """Stop here and not in the last step's end, where its losses were not logged yet."""
        if self.stopping:
            self._stop(trainer, self.stopping)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: dict, batch: dict, batch_idx: int
    ) -> None:
        """Write if it is due or a process was told to stop."""
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            return  # validation or the epoch's end come next and write
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        noted = torch.tensor(self.signalled, device=trainer.strategy.root_device)
        self.stopping = int(trainer.strategy.reduce(noted, reduce_op=ReduceOp.MAX))
        if self.stopping or (self.steps and trainer.global_step % self.steps == 0):
            self._write(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Validation may take long: whoever is stopped in it resumes with it."""
        self._write(trainer)

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: dict, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Processes have different numbers of batches here, so each stops on its own."""
        if self.signalled:
            self._stop(trainer, self.signalled)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write if it is due."""
        epoch = trainer.current_epoch + 1
        if epoch % self.epochs == 0 or epoch == trainer.max_epochs:
            self._write(trainer)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict) -> None:
        """Make a checkpoint written before validation look like one from its first batch.

        Lightning resumes only those with the validation.
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
            raise SystemExit(0)  # Lightning kills the first process when another one ends with an error
        print_log(
            f'stopped by {NAMES[signum]} after step {trainer.global_step}; --resume goes on with {self.path}',
            logger='current',
        )
        raise SystemExit(128 + signum)
