"""Any mmdet3d detector as a LightningModule."""
import lightning as L
import torch
from mmdet3d.registry import MODELS, PARAM_SCHEDULERS
from mmengine.config import Config, ConfigDict
from mmengine.evaluator import Evaluator
from mmengine.optim import build_optim_wrapper
from mmengine.runner import set_random_seed
from torch import Tensor

import bevformer_plugin


class DetectorModule(L.LightningModule):
    """Trains and evaluates a detector of the registry by an MMEngine-style config.

    Optimizer and parameter groups come from ``optim_wrapper``, schedules from ``param_scheduler``; both step as under
    MMEngine's Runner. The state dict is the detector's own, without a prefix, so the Runner reads it too.

    Args:
        cfg: the config.
        seed: makes the first step independent of the engine.
    """

    def __init__(self, cfg: Config, seed: int = 0) -> None:
        super().__init__()
        self.cfg = cfg
        self.seed = seed
        self.detector = MODELS.build(cfg.model)
        self.schedulers: list = []
        self.evaluator: Evaluator | None = None

    def state_dict(self, *, destination: dict | None = None, prefix: str = '', keep_vars: bool = False) -> dict:
        """The detector's state dict."""
        return self.detector.state_dict(destination=destination, prefix=prefix, keep_vars=keep_vars)

    def load_state_dict(self, state_dict: dict, strict: bool = True, assign: bool = False) -> object:
        """Load the detector's state dict."""
        return self.detector.load_state_dict(state_dict, strict=strict, assign=assign)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Build optimizer and schedules as MMEngine's Runner does."""
        wrapper_cfg = ConfigDict({key: value for key, value in self.cfg.optim_wrapper.items() if key != 'clip_grad'})
        optimizer = build_optim_wrapper(self.detector, wrapper_cfg).optimizer
        steps_per_epoch = len(self.trainer.datamodule.train_dataloader())
        epochs = self.cfg.train_cfg.max_epochs
        schedulers = self.cfg.get('param_scheduler') or []
        for scheduler in [schedulers] if isinstance(schedulers, dict) else schedulers:
            end = epochs if scheduler.get('by_epoch', True) else epochs * steps_per_epoch
            self.schedulers.append(PARAM_SCHEDULERS.build(
                {'end': end, **scheduler}, default_args=dict(optimizer=optimizer, epoch_length=steps_per_epoch)))
        return optimizer

    def on_fit_start(self) -> None:
        """Tell the preprocessor the device, which Lightning's own ``to`` does not."""
        self.detector.to(self.device)
        if self.device.type == 'cpu':
            # Convolutions are about 1.5 times as fast; the numbers stay the same.
            self.detector.to(memory_format=torch.channels_last)

    on_test_start = on_fit_start

    def on_train_start(self) -> None:
        """Seed again, so that dropout does not depend on what the engine drew before."""
        if self.global_step == 0:
            set_random_seed(self.seed + self.global_rank)

    def training_step(self, batch: dict, batch_idx: int) -> Tensor:
        """Losses of one batch.

        Raises:
            FloatingPointError: if a loss is not finite, with the sample tokens.
        """
        tokens = [sample.metainfo['sample_idx'] for sample in batch['data_samples']]
        data = self.detector.data_preprocessor(batch, True)
        try:
            losses = self.detector(**data, mode='loss')
        except FloatingPointError as error:
            raise FloatingPointError(f'{error} Step {self.global_step}, samples {tokens}.') from error
        loss, values = self.detector.parse_losses(losses)
        if not loss.isfinite():
            bad = [name for name, value in values.items() if not torch.isfinite(torch.as_tensor(value)).all()]
            raise FloatingPointError(f'{", ".join(bad)} not finite at step {self.global_step}, samples {tokens}')
        values['lr'] = self.trainer.optimizers[0].param_groups[0]['lr']
        self.log_dict({f'train/{name}': value for name, value in values.items()}, batch_size=len(tokens))
        self.log('loss', loss.detach(), prog_bar=True, logger=False, batch_size=len(tokens))
        return loss

    def on_train_batch_end(self, outputs: dict, batch: dict, batch_idx: int) -> None:
        """Step the schedules that count iterations."""
        for scheduler in self.schedulers:
            if not scheduler.by_epoch:
                scheduler.step()

    def on_train_epoch_end(self) -> None:
        """Step the schedules that count epochs."""
        for scheduler in self.schedulers:
            if scheduler.by_epoch:
                scheduler.step()

    def _start_evaluation(self, evaluator: dict, dataset: object) -> None:
        self.evaluator = Evaluator(evaluator)
        self.evaluator.dataset_meta = dataset.metainfo

    def on_validation_epoch_start(self) -> None:
        """Build the evaluator."""
        self._start_evaluation(self.cfg.val_evaluator, self.trainer.val_dataloaders.dataset)

    def on_test_epoch_start(self) -> None:
        """Build the evaluator."""
        self._start_evaluation(self.cfg.test_evaluator, self.trainer.test_dataloaders.dataset)

    def validation_step(self, batch: dict, batch_idx: int) -> None:
        """Detect, continuing each scene's stream, and hand the detections to the evaluator."""
        data = self.detector.data_preprocessor(batch, False)
        outputs = self.detector(**data, mode='predict')
        self.evaluator.process(data_samples=outputs, data_batch=batch)

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        """Score and log."""
        metrics = self.evaluator.evaluate(len(self.trainer.val_dataloaders.dataset))
        self.log_dict({name: torch.tensor(float(value)) for name, value in metrics.items()})

    def on_test_epoch_end(self) -> None:
        """Score; the evaluator prints its table."""
        self.evaluator.evaluate(len(self.trainer.test_dataloaders.dataset))

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Add the schedules, and what the weights belong to."""
        checkpoint['param_schedulers'] = [scheduler.state_dict() for scheduler in self.schedulers]
        checkpoint['meta'] = {
            'config': self.cfg.pretty_text,
            'dataset_meta': {'classes': list(self.trainer.datamodule.train_dataloader().dataset.metainfo['classes'])},
            'bevformer_plugin': bevformer_plugin.__version__, 'epoch': self.current_epoch}

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Keep the schedules' states until they are built."""
        self._scheduler_states = checkpoint.get('param_schedulers', [])

    def on_train_epoch_start(self) -> None:
        """Restore the schedules of a resumed run."""
        for scheduler, state in zip(self.schedulers, self.__dict__.pop('_scheduler_states', []), strict=False):
            scheduler.load_state_dict(state)
