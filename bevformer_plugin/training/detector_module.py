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

import bevformer_plugin
from bevformer_plugin.configuration import building
from bevformer_plugin.datasets.described import DescribedDataset
from bevformer_plugin.errors import NotFiniteError
from bevformer_plugin.seeding import derived_seed, seed_generators
from bevformer_plugin.weights import recorded_metainfo

from .averaging import averages_weights, weight_averaging
from .checkpoints import NOT_FINITE
from .data_module import DetectorDataModule
from .guards import LeftOutSteps, first_not_finite, gradient_norm, not_finite_gradients
from .learning_rate import describe_learning_rate, scaling_factor
from .parameter_groups import check_parameter_groups
from .run_settings import SETTINGS, Place, Value
from .schedule import FreshSchedule, advance, beyond_training, ended

# In this module the names of the weights begin so; in checkpoints they do not.
PREFIX = 'detector.'
# The keys of weights in a checkpoint; with an average, the first holds the average and the second the trained weights.
WEIGHTS = ('state_dict', 'current_model_state')


class DetectorModule(L.LightningModule):
    """Trains and evaluates a detector of the registry by an MMEngine-style config.

    Optimizer and parameter groups come from ``optim_wrapper``, schedules from ``param_scheduler``; both step as under
    MMEngine's Runner. Checkpoints hold the detector's own state dict, without a prefix, so the Runner reads them too.

    Args:
        cfg: the config.
        seed: seed from which, with the numbers of epoch, batch and process, each step is seeded.
        settings: settings of the run to record in its checkpoints, see :func:`.run_settings.run_settings`.
        resumed_at: position in the training data where a resumed run goes on; None for a new run.
        restart_schedule: whether a resumed run takes optimizer settings and schedules from the config.
    """

    # With few scenes, a process may have none to evaluate, and thus a loader without batches.
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
        self.left_out = LeftOutSteps()
        self.evaluator: Evaluator | None = None

    @property
    def _data(self) -> DetectorDataModule:
        """The data module that the trainer was given together with this module."""
        data = self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]  # Trainer does not declare it
        assert isinstance(data, DetectorDataModule)
        return data

    def configure_callbacks(self) -> list[Callback]:
        """Add the average of the weights, if the config asks for one."""
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
        self.schedulers = self._build_schedulers(optimizer, len(self._data.train_dataloader()))
        self.fresh_schedule = FreshSchedule(optimizer, self.schedulers)
        return optimizer

    def check_optimization(self, batches_per_epoch: int) -> list[str]:
        """Try to build the optimizer and its schedules and to step these once, before anything long starts.

        Returns:
            Remarks for the log, see :func:`.schedule.beyond_training`.

        Raises:
            InputError: if they cannot be built from the config, or settings of it have no effect.
        """
        scaling_factor(self.cfg, 1)
        optimizer = self._build_optimizer()
        check_parameter_groups(self.cfg.optim_wrapper, self.detector, optimizer)
        schedulers = self._build_schedulers(optimizer, batches_per_epoch)
        with building('param_scheduler'):
            advance(schedulers, batches=1, counted=1, batches_per_epoch=1)
        return beyond_training(schedulers, self.cfg.train_cfg.max_epochs, batches_per_epoch)

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
        """Choose the memory layout of the weights before a strategy groups them into buckets."""
        if self.device.type == 'cpu':
            # With this layout convolutions are about 1.5 times as fast and compute the same numbers.
            self.detector.to(memory_format=torch.channels_last)

    def on_fit_start(self) -> None:
        """Prepare the detector as MMEngine's Runner does, beyond what Lightning does."""
        self.detector.to(self.device)  # mmdet tells the preprocessor the device in its own to()
        self.detector.train()  # mmdet applies norm_eval and frozen stages in its own train()

    def on_test_start(self) -> None:
        """Tell the preprocessor the device, which Lightning's own ``to`` does not."""
        self.detector.to(self.device)

    def on_train_start(self) -> None:
        """Restore the schedules of a resumed run, after Lightning has restored the optimizer."""
        if self.restart_schedule:
            batches_per_epoch = int(self.trainer.num_training_batches)
            assert self.resumed_at is not None and self.fresh_schedule is not None
            batches = self.resumed_at.epochs * batches_per_epoch + self.resumed_at.batches
            self.fresh_schedule.restore(self.trainer.optimizers[0], self.schedulers)
            # Schedules of iterations are stepped once more when the next batch starts.
            advance(self.schedulers, batches, max(batches - 1, 0), batches_per_epoch)
        else:
            for scheduler, state in zip(self.schedulers, self.scheduler_states, strict=False):
                scheduler.load_state_dict(state)
        self._lay_out_optimizer()
        if isinstance(self.trainer.model, DistributedDataParallel):
            # After its first backward pass, DistributedDataParallel lays out its buckets anew, and the rounding of
            # sums over three processes depends on that layout. Two empty passes make it the same in new and resumed
            # runs.
            for _ in range(2):
                self.trainer.model().backward()
                self.zero_grad()

    def _lay_out_optimizer(self) -> None:
        """Give restored optimizer state the memory layout of its parameters, as fused optimizers rely on it."""
        for parameter, state in self.trainer.optimizers[0].state.items():
            for name, value in state.items():
                if value.shape == parameter.shape and value.stride() != parameter.stride():
                    state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)

    def forward(self) -> Tensor:
        """Compute a 0 whose backward pass reaches all parameters, the last one first."""
        zero = torch.zeros((), device=self.device)
        for parameter in self.detector.parameters():
            if parameter.requires_grad:
                zero = zero + 0 * parameter.sum()
        return zero

    def on_train_batch_start(self, batch: dict, batch_idx: int) -> None:
        """Step the schedules that count iterations, and seed the step."""
        # This cannot be done at the end of the batch before: callbacks write checkpoints there before this module
        # runs.
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
        """Return the largest rate of all parameter groups, since groups such as the backbone scale it down."""
        return max(group['lr'] for group in self.trainer.optimizers[0].param_groups)

    def _seed_step(self, batch_idx: int) -> None:
        """Seed the random number generators from the run's seed and the numbers of epoch, batch and process."""
        seed_generators(derived_seed(self.seed, self.current_epoch, batch_idx, self.global_rank))

    def training_step(self, batch: dict, batch_idx: int) -> Tensor:
        """Compute the loss of one batch.

        Raises:
            NotFiniteError: if a loss is not finite; the message names the first such tensor and the sample tokens.
        """
        tokens = [sample.metainfo['sample_idx'] for sample in batch['data_samples']]
        self.tokens.extend(tokens)
        data = self.detector.data_preprocessor(batch, True)
        try:
            loss, values = self.detector.parse_losses(self.detector(**data, mode='loss'))
            if not loss.isfinite():
                names = [name for name, value in values.items() if not torch.as_tensor(value).isfinite().all()]
                raise NotFiniteError(f'not finite: {", ".join(names)}')
        except FloatingPointError as error:
            # The file is written first, since the search for the tensor runs the detector and changes its buffers.
            path = self._save_for_inspection()
            self._seed_step(batch_idx)
            self._stop(f'{first_not_finite(self.detector, data)} is not finite ({error})', path)
        values['lr'] = self.current_learning_rate()
        self.log_dict({f'train/{name}': value for name, value in values.items()}, batch_size=len(tokens))
        self.log('loss', loss.detach(), prog_bar=True, logger=False, batch_size=len(tokens))
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Log the norm of the gradients before they are clipped.

        Raises:
            NotFiniteError: if it is not finite, with a gradient scaler in many steps in a row; the message names the
                parameters and the sample tokens.
        """
        norm = gradient_norm(self.detector)
        self.log('train/grad_norm', norm, batch_size=1)
        # A gradient scaler finds its scale through overflows and skips their steps, so a few are no errors.
        if getattr(self.trainer.precision_plugin, 'scaler', None) is not None:
            self.left_out.note(norm)
        elif not norm.isfinite():
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
        """Clip gradients with ``optim_wrapper.clip_grad`` as arguments of :func:`torch.nn.utils.clip_grad_norm_`.

        Lightning's own clipping refuses fused optimizers under any mixed precision, although only a gradient scaler
        makes it wrong.
        """
        clip_grad = self.cfg.optim_wrapper.get('clip_grad')
        if clip_grad:
            torch.nn.utils.clip_grad_norm_(self.detector.parameters(), **clip_grad)

    def _save_for_inspection(self) -> Path | None:
        """Write the weights and the optimizer from before this step, with the tokens of its samples.

        This uses no collective operation, since the losses of all other processes may be finite.
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

    def _start_evaluation(self, evaluator: dict, dataset: DescribedDataset) -> None:
        self.evaluator = Evaluator(evaluator)
        self.evaluator.dataset_meta = dataset.metainfo

    def on_validation_epoch_start(self) -> None:
        """Build the evaluator of the validation."""
        self._start_evaluation(self.cfg.val_evaluator, self._data.datasets['val'])

    def on_test_epoch_start(self) -> None:
        """Build the evaluator of the test."""
        self._start_evaluation(self.cfg.test_evaluator, self._data.datasets['test'])

    def validation_step(self, batch: dict | None, batch_idx: int) -> None:
        """Detect in the next frame of each scene and hand the detections to the evaluator.

        The batch is None in a process that has no scene to evaluate.
        """
        if batch is None:
            return
        assert self.evaluator is not None
        data = self.detector.data_preprocessor(batch, False)
        outputs = self.detector(**data, mode='predict')
        self.evaluator.process(data_samples=outputs, data_batch=batch)

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        """Score the detections and log the scores, which are the same in all processes."""
        assert self.evaluator is not None
        metrics = self.evaluator.evaluate(len(self._data.datasets['val']))
        self.log_dict({name: torch.tensor(float(value)) for name, value in metrics.items()})

    def on_test_epoch_end(self) -> None:
        """Score the detections; the evaluator prints its table."""
        assert self.evaluator is not None
        self.evaluator.evaluate(len(self._data.datasets['test']))

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Add schedules and metadata to the checkpoint, and name the weights as the detector does."""
        for key in WEIGHTS:
            if key in checkpoint:
                checkpoint[key] = {name.removeprefix(PREFIX): value for name, value in checkpoint[key].items()}
        checkpoint['param_schedulers'] = [scheduler.state_dict() for scheduler in self.schedulers]
        checkpoint['meta'] = self._meta()

    def _meta(self) -> dict:
        return {
            'config': self.cfg.pretty_text,
            'dataset_meta': recorded_metainfo(self._data.datasets['train'].metainfo),
            'bevformer_plugin': bevformer_plugin.__version__,
            'epoch': self.current_epoch,
            SETTINGS: self.settings,
        }

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Name the weights as this module does, and keep the state of the schedules until these are built."""
        for key in WEIGHTS:
            if key in checkpoint:
                checkpoint[key] = {f'{PREFIX}{name}': value for name, value in checkpoint[key].items()}
        self.scheduler_states = checkpoint.get('param_schedulers', [])
