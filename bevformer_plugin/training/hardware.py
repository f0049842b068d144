"""The devices, the strategy and the precision of a run."""

from dataclasses import dataclass
from typing import Literal

import torch
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import DDPStrategy, Strategy
from mmengine.config import Config
from mmengine.device import get_device
from torch import nn

from bevformer_plugin.errors import InputError

from .averaging import averages_weights
from .sharding import ShardedStrategy

# Lightning's name of a precision.
Precision = Literal['32-true', '16-mixed', 'bf16-mixed']
FULL_PRECISION: Precision = '32-true'
# MMEngine's dtype of mixed precision to Lightning's name of it.
MIXED_PRECISIONS: dict[str, Literal['16-mixed', 'bf16-mixed']] = {'float16': '16-mixed', 'bfloat16': 'bf16-mixed'}


@dataclass(frozen=True)
class Hardware:
    """The devices of a run, as the command line chooses them; Lightning itself detects torchrun and SLURM.

    Attributes:
        devices: how many devices of each node to use, or which by their numbers; 'auto' uses all.
        num_nodes: number of computers, at least one.
        accelerator: Lightning's name of the kind of device.
        strategy: 'ddp' keeps everything in every process; 'fsdp' shards gradients and optimizer state, and between
            steps the weights; 'auto' is 'ddp' for several processes.
        precision: Lightning's name of the precision; None takes that of the config.

    Raises:
        InputError: for an unknown strategy or precision, fewer than one node, or numbers of devices on a CPU.
    """

    devices: int | Literal['auto'] | list[int] = 'auto'
    num_nodes: int = 1
    accelerator: str = 'auto'
    strategy: str = 'auto'
    precision: Precision | None = None

    def __post_init__(self) -> None:
        if self.strategy not in ('auto', 'ddp', 'fsdp'):
            raise InputError(f"strategy is 'auto', 'ddp' or 'fsdp', got {self.strategy!r}")
        known = (FULL_PRECISION, *MIXED_PRECISIONS.values())
        if self.precision is not None and self.precision not in known:
            raise InputError(f'precision is {", ".join(known)}, got {self.precision!r}')
        if self.num_nodes < 1:
            raise InputError(f'the number of nodes must be at least 1, got {self.num_nodes}')
        on_cpu = self.accelerator == 'cpu' or (self.accelerator == 'auto' and not torch.accelerator.is_available())
        if on_cpu and isinstance(self.devices, list):
            raise InputError(
                f'devices {self.devices} are numbers of GPUs, and this run is on a CPU: give a number of processes, '
                'such as --devices 2'
            )

    @property
    def several_processes(self) -> bool:
        """Whether the run has more than one device."""
        if isinstance(self.devices, int):
            count = self.devices
        elif isinstance(self.devices, list):
            count = len(self.devices)
        else:
            count = 1 if self.accelerator == 'cpu' else torch.cuda.device_count()
        return count > 1 or self.num_nodes > 1

    def trainer_arguments(self) -> dict:
        """Return the arguments of Lightning's trainer that choose devices and strategy."""
        return {
            'accelerator': self.accelerator,
            'devices': self.devices,
            'num_nodes': self.num_nodes,
            'strategy': self._strategy(),
        }

    def _strategy(self) -> Strategy | str:
        if self.strategy == 'fsdp':
            return ShardedStrategy()
        if self.strategy == 'ddp' or self.several_processes:
            # The graph is static because every step uses all parameters in the same way, with and without history.
            return DDPStrategy(static_graph=True)
        return 'auto'


def parse_devices(text: str) -> int | Literal['auto'] | list[int]:
    """Parse ``--devices``: 'auto', how many devices, or as in Lightning which ones: '0,1', or '2,' for a single one.

    Raises:
        InputError: for any other text.
    """
    if text == 'auto':
        return 'auto'
    numbers = text.removesuffix(',').split(',')
    if not all(number.isascii() and number.isdigit() for number in numbers):
        raise InputError(f"devices must be 'auto', how many (2) or which (0,1 or 0,), got {text!r}")
    if ',' in text:
        devices = [int(number) for number in numbers]
        if len(set(devices)) < len(devices):
            raise InputError(f'devices {text!r} names one twice')
        return devices
    if int(text) < 1:
        raise InputError(f"devices must be at least 1, got {text!r}; device number 0 alone is '0,'")
    return int(text)


class StaticLossScaler(torch.amp.GradScaler):
    """Scales losses by the same number in every step; as under MMEngine, a step with overflowing gradients is skipped.

    Args:
        device: the kind of device that trains, such as 'cuda'.
        scale: the number by which losses are multiplied.
    """

    def __init__(self, device: str, scale: float) -> None:
        super().__init__(device, init_scale=scale)
        self.static_scale = scale

    def update(self, new_scale: float | torch.Tensor | None = None) -> None:
        """Keep the scale for the next step, whatever this one found."""
        super().update(self.static_scale)


def run_precision(cfg: Config, hardware: Hardware) -> Precision:
    """Return Lightning's name of the precision: that of the command line, or else that of the config."""
    return hardware.precision or configured_precision(cfg)


def check_precision(cfg: Config, hardware: Hardware) -> None:
    """Refuse a precision that cannot be trained with under Lightning.

    Raises:
        InputError: for an optimizer wrapper that Lightning does not know, for float16 on a CPU or with clipped
            gradients and a fused optimizer, or for a ``loss_scale`` that is no scale or has no effect.
    """
    wrapper = cfg.optim_wrapper
    kind = wrapper.get('type', 'OptimWrapper')
    if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise InputError(
            f"optim_wrapper.type is 'OptimWrapper' or 'AmpOptimWrapper' under Lightning, got {kind!r}; "
            '--engine mmengine runs any'
        )
    precision = run_precision(cfg, hardware)
    _check_loss_scale(cfg, precision)
    if precision != '16-mixed':
        return
    if wrapper.optimizer.get('fused') and wrapper.get('clip_grad'):
        raise InputError(
            'precision 16-mixed scales gradients, and a fused optimizer unscales them only after they '
            'were clipped: use bf16-mixed, optim_wrapper.optimizer.fused=False, or '
            'optim_wrapper.clip_grad=None'
        )
    if hardware.accelerator == 'cpu' or (hardware.accelerator == 'auto' and get_device() == 'cpu'):
        raise InputError(
            'precision 16-mixed (float16) needs a GPU: on a CPU take --precision bf16-mixed, or '
            'optim_wrapper.dtype=bfloat16 without a loss_scale'
        )


def check_precision_under_mmengine(cfg: Config) -> None:
    """Refuse a precision that MMEngine's ``AmpOptimWrapper`` cannot train with.

    Raises:
        InputError: for mixed precision on a CPU, or a ``loss_scale`` that is no scale or has no effect.
    """
    _check_loss_scale(cfg, configured_precision(cfg))
    if cfg.optim_wrapper.get('type') == 'AmpOptimWrapper' and get_device() == 'cpu':
        raise InputError(
            "optim_wrapper.type='AmpOptimWrapper' needs a GPU under MMEngine: on a CPU train with --engine lightning, "
            "or with optim_wrapper.type='OptimWrapper'"
        )


def _check_loss_scale(cfg: Config, precision: str) -> None:
    loss_scale = cfg.optim_wrapper.get('loss_scale', 'dynamic')
    if loss_scale == 'dynamic':
        return
    if not isinstance(loss_scale, float) or not 0 < loss_scale < float('inf'):
        raise InputError(
            f"optim_wrapper.loss_scale is 'dynamic' or a positive float such as 512.0, got {loss_scale!r}"
        )
    if precision != '16-mixed':
        raise InputError(
            f'optim_wrapper.loss_scale={loss_scale} is for float16 and has no effect in precision {precision}: '
            "leave it out (optim_wrapper.loss_scale='dynamic'), or train with AmpOptimWrapper and float16"
        )


def loss_scale_plugins(cfg: Config, hardware: Hardware) -> list[MixedPrecision]:
    """Build Lightning's plugin for a static ``optim_wrapper.loss_scale``, which takes the place of a precision.

    Returns:
        The plugin alone, or nothing where losses are scaled dynamically or not at all.
    """
    loss_scale = cfg.optim_wrapper.get('loss_scale', 'dynamic')
    precision = run_precision(cfg, hardware)
    if loss_scale == 'dynamic' or precision == '32-true':
        return []
    device = get_device()
    return [MixedPrecision(precision, device, StaticLossScaler(device, loss_scale))]


def check_strategy(cfg: Config, strategy: str) -> None:
    """Refuse settings that a strategy cannot honour.

    Raises:
        InputError: for strategy 'fsdp' together with an average of the weights or a static scale of the losses.
    """
    if strategy == 'fsdp' and averages_weights(cfg):
        raise InputError(
            'strategy fsdp cannot average weights, which EMAHook in custom_hooks asks for: use ddp, or '
            'leave the hook out'
        )
    if strategy == 'fsdp' and cfg.optim_wrapper.get('loss_scale', 'dynamic') != 'dynamic':
        raise InputError(
            f'strategy fsdp scales losses dynamically, and optim_wrapper.loss_scale is '
            f"{cfg.optim_wrapper.loss_scale}: use ddp, or loss_scale='dynamic'"
        )


def check_norms(detector: nn.Module, device: torch.device, processes: int) -> None:
    """Refuse norms that the devices cannot train.

    Raises:
        InputError: for synchronised batch norms in several processes on CPUs.
    """
    if processes > 1 and device.type == 'cpu' and any(isinstance(one, nn.SyncBatchNorm) for one in detector.modules()):
        raise InputError(
            f"norm_cfg.type='SyncBN' needs GPUs to train in {processes} processes: on CPUs take 'BN', in "
            'model.img_backbone and every other part that has it'
        )


def configured_precision(cfg: Config) -> Precision:
    """Return Lightning's name of the config's precision, which is mixed for ``optim_wrapper.type='AmpOptimWrapper'``.

    Raises:
        InputError: if ``optim_wrapper.dtype`` is neither 'float16' nor 'bfloat16'.
    """
    if cfg.optim_wrapper.get('type', 'OptimWrapper') != 'AmpOptimWrapper':
        return FULL_PRECISION
    dtype = cfg.optim_wrapper.get('dtype') or 'float16'  # the default of MMEngine
    if dtype not in MIXED_PRECISIONS:
        raise InputError(f"optim_wrapper.dtype is 'float16' or 'bfloat16', got {dtype!r}")
    return MIXED_PRECISIONS[dtype]
