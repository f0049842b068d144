"""What a run prints while it goes on."""
import time

import lightning as L
from lightning.pytorch.callbacks import Callback
from mmengine.logging import print_log


class EpochReport(Callback):
    """One line per epoch: mean loss, learning rate, seconds per step, share of it waiting for data, time left."""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clocks."""
        self.losses: list[float] = []
        self.waited = 0.0
        self.start = self.batch_end = time.perf_counter()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: dict,
                             batch_idx: int) -> None:
        """Count the wait for this batch."""
        self.waited += time.perf_counter() - self.batch_end

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: dict, batch: dict,
                           batch_idx: int) -> None:
        """Keep the loss."""
        self.losses.append(float(outputs['loss']))
        self.batch_end = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the line."""
        if not trainer.is_global_zero or not self.losses:
            return
        seconds = self.batch_end - self.start
        left = seconds * (trainer.max_epochs - trainer.current_epoch - 1)
        print_log(
            f'epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  loss {sum(self.losses) / len(self.losses):.3f}  '
            f"lr {trainer.optimizers[0].param_groups[0]['lr']:.2e}  {seconds / len(self.losses):.2f} s/step "
            f'({100 * self.waited / seconds:.0f}% data)  {left / 60:.1f} min left', logger='current')
