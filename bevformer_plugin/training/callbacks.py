"""What a run does beside its steps: it reports, keeps its last checkpoint, and validates when it is due."""

import signal
import time
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Callback, Checkpoint
from mmengine.logging import print_log


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
        self.losses.append(float(outputs['loss']))
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
        rate = max(group['lr'] for group in trainer.optimizers[0].param_groups)  # others have a share of it
        print_log(
            f'epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  loss {sum(self.losses) / len(self.losses):.3f}  '
            f'lr {rate:.2e}  {seconds / len(self.losses):.2f} s/step '
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


class LastCheckpoint(Checkpoint):
    """Keeps one checkpoint; a run resumed from it goes on as if it had never stopped.

    It is written at the end of epochs, before validation, and every ``steps`` optimizer steps. SIGTERM to any process
    lets all of them finish their step, writes it, and ends the run with exit status 143; in validation it ends the
    run at once, and the resumed run validates again.

    Lightning's own handler is replaced: it enters a collective wherever the signal finds a process, which crosses
    with the collectives of the step, and it stops where gradients may have been accumulated only in part.

    Args:
        path: where to.
        epochs: write at the end of every so many; the last epoch's end always counts.
        steps: write also every so many optimizer steps; None never.
    """

    def __init__(self, path: Path, epochs: int = 1, steps: int | None = None) -> None:
        self.path = path
        self.epochs = epochs
        self.steps = steps
        self.signalled = self.stopping = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen to SIGTERM; Lightning puts the earlier handler back when the run ends."""

        def note(signum: int, frame: object) -> None:
            self.signalled = True

        signal.signal(signal.SIGTERM, note)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: dict, batch_idx: int
    ) -> None:
        """Stop here and not in the last step's end, where its losses were not logged yet."""
        if self.stopping:
            self._stop(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: dict, batch: dict, batch_idx: int
    ) -> None:
        """Write if it is due or a process was told to stop."""
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            return  # validation or the epoch's end come next and write
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        self.stopping = trainer.strategy.reduce_boolean_decision(self.signalled, all=False)
        if self.stopping or (self.steps and trainer.global_step % self.steps == 0):
            trainer.save_checkpoint(self.path, weights_only=False)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Validation may take long: whoever is stopped in it resumes with it."""
        trainer.save_checkpoint(self.path, weights_only=False)

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: dict, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Processes have different numbers of batches here, so each stops on its own."""
        if self.signalled:
            self._stop(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write if it is due."""
        epoch = trainer.current_epoch + 1
        if epoch % self.epochs == 0 or epoch == trainer.max_epochs:
            trainer.save_checkpoint(self.path, weights_only=False)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict) -> None:
        """Make a checkpoint written before validation look like one from its first batch.

        Lightning resumes only those with the validation.
        """
        progress = checkpoint['loops']['fit_loop']['epoch_loop.val_loop.batch_progress']
        if trainer.validating and not progress['current']['ready']:
            progress['total'].update(ready=1, started=1)

    def _stop(self, trainer: L.Trainer) -> None:
        if not trainer.is_global_zero:
            raise SystemExit(0)  # Lightning kills the first process when another one ends with an error
        print_log(
            f'stopped by SIGTERM after step {trainer.global_step}; --resume goes on with {self.path}', logger='current'
        )
        raise SystemExit(128 + signal.SIGTERM)
