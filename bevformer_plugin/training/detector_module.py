"""Any mmdet3d detector as a LightningModule."""

from pathlib import Path
from typing import NoReturn

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from mmdet3d.registry import MODELS, PARAM_SCHEDULERS
from mmengine.config import Config, ConfigDict
from mmengine.evaluator import Evaluator
from mmengine.logging import print_log
from mmengine.optim import _ParamScheduler, build_optim_wrapper
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset

import bevformer_plugin
from bevformer_plugin.configuration import building
from bevformer_plugin.errors import NotFiniteError
from bevformer_plugin.seeding import derived_seed, seed_generators
from bevformer_plugin.weights import recorded_metainfo

from .averaging import averages_weights, weight_averaging
from .checkpoints import NOT_FINITE
from .guards import first_not_finite, gradient_norm, not_finite_gradients
from .learning_rate import describe_learning_rate, scaling_factor
from .run_settings import SETTINGS, Place, Value
from .schedule import FreshSchedule, advance, ended

# This module's name for the detector, and where a checkpoint holds weights (with an average, the second is the other).
PREFIX, WEIGHTS = 'detector.', ('state_dict', 'current_model_state')


class DetectorModule(L.LightningModule):
    """Trains and evaluates a detector of the registry by an MMEngine-style config.

    Optimizer and parameter groups come from ``optim_wrapper``, schedules from ``param_scheduler``; both step as under
    MMEngine's Runner. Checkpoints hold the detector's own state dict, without a prefix, so the Runner reads them too.

    Args:
        cfg: the config.
        seed: of what is random in a step, together with epoch, batch and process; nothing else decides on it.
        settings: of the run, for its checkpoints; see :func:`.run_settings.run_settings`.
        resumed_at: where a resumed run goes on.
        restart_schedule: whether a resumed run takes optimizer settings and schedules from the config.
    """

    # A process may have no scene to evaluate.
    allow_zero_length_dataloader_with_multiple_devices = True

    def __init__(
        self,
        cfg: Config,
        seed: int = 0,
        settings: dict[str, Value] | None = None,
        resumed_at: Place | None = None,
        restart_schedule: bool = False,
    ) -> None:
        super().__init__()
        self.cfg = cfg
        self.seed = seed
        self.settings = settings
        self.resumed_at = resumed_at
        self.restart_schedule = restart_schedule
        self.fresh_schedule: FreshSchedule | None = None
        self.announced = False
        self.averages_weights = averages_weights(cfg)
        with building('model'):
            self.detector = MODELS.build(cfg.model)
        self.schedulers: list[_ParamScheduler] = []
        self.scheduler_states: list[dict] = []
        self.tokens: list[str] = []
        self.evaluator: Evaluator | None = None

    def configure_callbacks(self) -> list[Callback]:
        """The average of the weights, if the config asks for one."""
        return [weight_averaging(self.cfg, self.trainer.strategy.root_device)] if self.averages_weights else []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Build optimizer and schedules as MMEngine's Runner does; the learning rate follows the batch."""
        optimizer = self._build_optimizer()
        processes = self.trainer.world_size
        factor = scaling_factor(self.cfg, processes)
        if self.resumed_at is None:
            print_log(f'learning rate {describe_learning_rate(self.cfg, processes)}', logger='current')
        for group in optimizer.param_groups:
            group['lr'] *= factor
        self.schedulers = self._build_schedulers(optimizer, len(self.trainer.datamodule.train_dataloader()))
        self.fresh_schedule = FreshSchedule(optimizer, self.schedulers)
        return optimizer

    def check_optimization(self, batches_per_epoch: int) -> None:
        """Try to build optimizer and schedules, before anything long.

        Raises:
            InputError: if the config asks for what there is not.
        """
        scaling_factor(self.cfg, 1)
        self._build_schedulers(self._build_optimizer(), batches_per_epoch)

    def _build_optimizer(self) -> torch.optim.Optimizer:
        wrapper_cfg = ConfigDict(
            {
                key: value
                for key, value in self.cfg.optim_wrapper.items()
                if key in ('optimizer', 'paramwise_cfg', 'constructor')
            }
        )
        with building('optim_wrapper'):
            return build_optim_wrapper(self.detector, wrapper_cfg).optimizer

    def _build_schedulers(self, optimizer: torch.optim.Optimizer, batches_per_epoch: int) -> list[_ParamScheduler]:
        epochs = self.cfg.train_cfg.max_epochs
        schedulers = self.cfg.get('param_scheduler') or []
        built = []
        for scheduler in [schedulers] if isinstance(schedulers, dict) else schedulers:
            end = epochs if scheduler.get('by_epoch', True) else epochs * batches_per_epoch
            with building('param_scheduler'):
                built.append(
                    PARAM_SCHEDULERS.build(
                        {'end': end, **scheduler},
                        default_args=dict(optimizer=optimizer, epoch_length=batches_per_epoch),
                    )
                )
        return built

    def setup(self, stage: str) -> None:
        """Choose the layout of the weights before a strategy makes buckets of them."""
        if self.device.type == 'cpu':
            # Convolutions are about 1.5 times as fast; the numbers stay the same.
            self.detector.to(memory_format=torch.channels_last)

    def on_fit_start(self) -> None:
        """Prepare the detector as MMEngine's Runner does, beyond what Lightning does."""
        self.detector.to(self.device)  # tells the preprocessor
        self.detector.train()  # norm_eval and frozen stages take effect in mmdet's own train()

    def on_test_start(self) -> None:
        """Tell the preprocessor the device, which Lightning's own ``to`` does not."""
        self.detector.to(self.device)

    def on_train_start(self) -> None:
        """Restore the schedules of a resumed run, after Lightning has restored the optimizer."""
        if self.restart_schedule:
            batches_per_epoch = self.trainer.num_training_batches
            batches = self.resumed_at.epochs * batches_per_epoch + self.resumed_at.batches
            self.fresh_schedule.restore(self.trainer.optimizers[0], self.schedulers)
            # Schedules of iterations are stepped once more when the next batch starts.
            advance(self.schedulers, batches, max(batches - 1, 0), batches_per_epoch)
        else:
            for scheduler, state in zip(self.schedulers, self.scheduler_states, strict=False):
                scheduler.load_state_dict(state)
        self._lay_out_optimizer()
        if isinstance(self.trainer.model, DistributedDataParallel):
            # It lays out its buckets anew by the first backward pass it sees, at the start of the next, and sums over
            # three processes depend on the layout. So it sees the same passes in a fresh and in a resumed run.
            for _ in range(2):
                self.trainer.model().backward()
                self.zero_grad()

    def _lay_out_optimizer(self) -> None:
        """Give restored state the layout of its parameters: fused optimizers read both by position in memory."""
        for parameter, state in self.trainer.optimizers[0].state.items():
            for name, value in state.items():
                if value.shape == parameter.shape and value.stride() != parameter.stride():
                    state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)

    def forward(self) -> Tensor:
        """A 0 whose backward pass reaches all parameters, the last first."""
        zero = torch.zeros((), device=self.device)
        for parameter in self.detector.parameters():
            if parameter.requires_grad:
                zero = zero + 0 * parameter.sum()
        return zero

    def on_train_batch_start(self, batch: dict, batch_idx: int) -> None:
        """Step the schedules that count iterations, and seed the step."""
        # Here and not at the end of the batch before, where callbacks write checkpoints ahead of this module's turn.
        if self.trainer.fit_loop.total_batch_idx:
            for scheduler in self.schedulers:
                if not scheduler.by_epoch:
                    scheduler.step()
        if self.resumed_at is not None and not self.announced:
            self.announced = True
            print_log(
                f'learning rate {self.current_learning_rate():.3g} in the first step from here'
                f'{ended(self.schedulers)}; before schedules '
                f'{describe_learning_rate(self.cfg, self.trainer.world_size)}',
                logger='current',
            )
        self._seed_step(batch_idx)

    def current_learning_rate(self) -> float:
        """The configured one: parameters with a factor, such as the backbone's, have less."""
        return max(group['lr'] for group in self.trainer.optimizers[0].param_groups)

    def _seed_step(self, batch_idx: int) -> None:
        seed_generators(derived_seed(self.seed, self.current_epoch, batch_idx, self.global_rank))

    def training_step(self, batch: dict, batch_idx: int) -> Tensor:
        """Losses of one batch.

        Raises:
            NotFiniteError: if a loss is not finite, with the tensor that is the first, and the sample tokens.
        """
        tokens = [sample.metainfo['sample_idx'] for sample in batch['data_samples']]
        self.tokens.extend(tokens)
        data = self.detector.data_preprocessor(batch, True)
        try:
            loss, values = self.detector.parse_losses(self.detector(**data, mode='loss'))
            if not loss.isfinite():
                bad = [name for name, value in values.items() if not torch.as_tensor(value).isfinite().all()]
                raise NotFiniteError(f'not finite: {", ".join(bad)}')
        except FloatingPointError as error:
            # Written before the search, which runs the detector again.
            path = self._save_for_inspection()
            self._seed_step(batch_idx)
            self._stop(f'{first_not_finite(self.detector, data)} is not finite ({error})', path)
        values['lr'] = self.current_learning_rate()
        self.log_dict({f'train/{name}': value for name, value in values.items()}, batch_size=len(tokens))
        self.log('loss', loss.detach(), prog_bar=True, logger=False, batch_size=len(tokens))
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Log the gradients' norm before clipping.

        Raises:
            NotFiniteError: if it is not finite, with the parameters and the sample tokens.
        """
        norm = gradient_norm(self.detector)
        self.log('train/grad_norm', norm, batch_size=1)
        # A gradient scaler looks for its scale by overflows and leaves out their steps.
        if not norm.isfinite() and getattr(self.trainer.precision_plugin, 'scaler', None) is None:
            names = not_finite_gradients(self.detector)
            path = self._save_for_inspection() if self.trainer.is_global_zero else None
            self._stop(
                f'the gradient of {", ".join(names[:3]) or "all parameters together"} is not finite '
                f'({len(names)} parameters)',
                path,
            )
        self.tokens.clear()

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as ``optim_wrapper.clip_grad`` says, the arguments of :func:`torch.nn.utils.clip_grad_norm_`.

        Lightning's own clipping refuses fused optimizers under any mixed precision, though only a gradient scaler is
        in their way.
        """
        clip_grad = self.cfg.optim_wrapper.get('clip_grad')
        if clip_grad:
            torch.nn.utils.clip_grad_norm_(self.detector.parameters(), **clip_grad)

    def _save_for_inspection(self) -> Path | None:
        """Write weights and optimizer as they were before this step, and its samples.

        There is no collective in it: losses may be finite in all other processes.
        """
        path = Path(self.trainer.default_root_dir) / NOT_FINITE
        self.trainer.strategy.checkpoint_io.save_checkpoint(
            {
                'state_dict': self.detector.state_dict(),
                'optimizer': self.trainer.optimizers[0].state_dict(),
                'epoch': self.current_epoch,
                'global_step': self.global_step,
                'samples': list(self.tokens),
                'meta': self._meta(),
            },
            str(path),
        )
        return path

    def _stop(self, reason: str, path: Path | None) -> NoReturn:
        written = '' if path is None else f' Weights and optimizer before the step are in {path}.'
        raise NotFiniteError(f'{reason} at step {self.global_step}, samples {", ".join(self.tokens)}.{written}')

    def on_train_epoch_end(self) -> None:
        """Step the schedules that count epochs."""
        for scheduler in self.schedulers:
            if scheduler.by_epoch:
                scheduler.step()

    def _start_evaluation(self, evaluator: dict, dataset: Dataset) -> None:
        self.evaluator = Evaluator(evaluator)
        self.evaluator.dataset_meta = dataset.metainfo

    def on_validation_epoch_start(self) -> None:
        """Build the evaluator."""
        self._start_evaluation(self.cfg.val_evaluator, self.trainer.datamodule.datasets['val'])

    def on_test_epoch_start(self) -> None:
        """Build the evaluator."""
        self._start_evaluation(self.cfg.test_evaluator, self.trainer.datamodule.datasets['test'])

    def validation_step(self, batch: dict | None, batch_idx: int) -> None:
        """Detect, continuing each scene's stream, and hand the detections to the evaluator; None has nothing to do."""
        if batch is None:
            return
        data = self.detector.data_preprocessor(batch, False)
        outputs = self.detector(**data, mode='predict')
        self.evaluator.process(data_samples=outputs, data_batch=batch)

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        """Score and log; all processes have the same scores."""
        metrics = self.evaluator.evaluate(len(self.trainer.datamodule.datasets['val']))
        self.log_dict({name: torch.tensor(float(value)) for name, value in metrics.items()})

    def on_test_epoch_end(self) -> None:
        """Score; the evaluator prints its table."""
        self.evaluator.evaluate(len(self.trainer.datamodule.datasets['test']))

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Add the schedules, and what the weights belong to; name the weights as the detector does."""
        for key in WEIGHTS:
            if key in checkpoint:
                checkpoint[key] = {name.removeprefix(PREFIX): value for name, value in checkpoint[key].items()}
        checkpoint['param_schedulers'] = [scheduler.state_dict() for scheduler in self.schedulers]
        checkpoint['meta'] = self._meta()

    def _meta(self) -> dict:
        return {
            'config': self.cfg.pretty_text,
            'dataset_meta': recorded_metainfo(self.trainer.datamodule.datasets['train'].metainfo),
            'bevformer_plugin': bevformer_plugin.__version__,
            'epoch': self.current_epoch,
            SETTINGS: self.settings,
        }

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Keep the schedules' states until they are built; name the weights as this module does."""
        for key in WEIGHTS:
            if key in checkpoint:
                checkpoint[key] = {f'{PREFIX}{name}': value for name, value in checkpoint[key].items()}
        self.scheduler_states = checkpoint.get('param_schedulers', [])
