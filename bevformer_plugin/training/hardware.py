"""What a run runs on."""

from dataclasses import dataclass

import torch
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import DDPStrategy, Strategy
from mmengine.config import Config
from mmengine.device import get_device

from bevformer_plugin.errors import InputError

from .averaging import averages_weights
from .sharding import ShardedStrategy

PRECISIONS = {None: '32-true', 'float16': '16-mixed', 'bfloat16': 'bf16-mixed'}


@dataclass(frozen=True)
class Hardware:
    """Devices of a run; torchrun and SLURM are found by Lightning.

    Attributes:
        devices: how many of each node, or the numbers of those to use; 'auto' is all.
        num_nodes: computers, at least one.
        accelerator: Lightning's name of the kind of device.
        strategy: 'ddp' every process holds everything; 'fsdp' gradients and optimizer state are sharded, and weights
            between steps; 'auto' is 'ddp' for several processes.
        precision: Lightning's name of it; None as the config says.

    Raises:
        InputError: for another strategy or precision, no node, or numbers of devices where there are none but the CPU.
    """

    devices: int | str | list[int] = 'auto'
    num_nodes: int = 1
    accelerator: str = 'auto'
    strategy: str = 'auto'
    precision: str | None = None

    def __post_init__(self) -> None:
        if self.strategy not in ('auto', 'ddp', 'fsdp'):
            raise InputError(f"strategy is 'auto', 'ddp' or 'fsdp', got {self.strategy!r}")
        if self.precision is not None and self.precision not in PRECISIONS.values():
            raise InputError(f'precision is {", ".join(PRECISIONS.values())}, got {self.precision!r}')
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
        """Whether there is more than one device."""
        devices = self.devices
        if devices == 'auto':
            devices = 1 if self.accelerator == 'cpu' else torch.cuda.device_count()
        return (len(devices) if isinstance(devices, list) else devices) > 1 or self.num_nodes > 1

    def trainer_arguments(self) -> dict:
        """What Lightning's trainer takes of it, but for the precision."""
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
            # Every step uses all parameters in the same way, with and without history.
            return DDPStrategy(static_graph=True)
        return 'auto'


def parse_devices(text: str) -> int | str | list[int]:
    """What ``--devices`` says: 'auto', a number of devices, or as in Lightning their numbers: '0,1', or '2,' for one.

    Raises:
        InputError: for anything else, naming it.
    """
    if text == 'auto':
        return text
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
    """Scales losses by the same number in every step; a step whose gradients overflow is left out, as under MMEngine.

    Args:
        device: kind of device that trains.
        scale: the number.
    """

    def __init__(self, device: str, scale: float) -> None:
        super().__init__(device, init_scale=scale)
        self.static_scale = scale

    def update(self, new_scale: float | torch.Tensor | None = None) -> None:
        """Go on to the next step with the same scale."""
        super().update(self.static_scale)


def run_precision(cfg: Config, hardware: Hardware) -> str:
    """Lightning's name of the precision: the one asked for, or the config's."""
    return hardware.precision or configured_precision(cfg)


def check_precision(cfg: Config, hardware: Hardware) -> None:
    """Refuse what a precision cannot do under Lightning.

    Raises:
        InputError: for gradients that are clipped before a fused optimizer takes their scale of half precision away,
            for half precision on a CPU, or a ``loss_scale`` that is none or has no effect.
    """
    wrapper, precision = cfg.optim_wrapper, run_precision(cfg, hardware)
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
    """Refuse what MMEngine's ``AmpOptimWrapper`` cannot do.

    Raises:
        InputError: for mixed precision on a CPU, or a ``loss_scale`` that is none or has no effect.
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
    """Lightning's plugin for the static ``optim_wrapper.loss_scale``, in place of a precision; none without one."""
    loss_scale = cfg.optim_wrapper.get('loss_scale', 'dynamic')
    if loss_scale == 'dynamic':
        return []
    device = get_device()
    return [MixedPrecision(run_precision(cfg, hardware), device, StaticLossScaler(device, loss_scale))]


def check_strategy(cfg: Config, strategy: str) -> None:
    """Refuse what a strategy cannot do.

    Raises:
        InputError: for an average of sharded weights, or a static scale of losses whose gradients are sharded.
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


def configured_precision(cfg: Config) -> str:
    """Lightning's precision for the config's ``optim_wrapper``: MMEngine's ``AmpOptimWrapper`` and its ``dtype``.

    Raises:
        InputError: for another dtype.
    """
    if cfg.optim_wrapper.get('type', 'OptimWrapper') != 'AmpOptimWrapper':
        return PRECISIONS[None]
    dtype = cfg.optim_wrapper.get('dtype') or 'float16'  # MMEngine's default
    if dtype not in PRECISIONS:
        raise InputError(f"optim_wrapper.dtype is 'float16' or 'bfloat16', got {dtype!r}")
    return PRECISIONS[dtype]
