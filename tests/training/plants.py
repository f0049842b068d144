"""Accidents for the tools' processes; each is called before the tool runs."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor

from bevformer_plugin.training import DetectorModule


@dataclass
class Sigterm:
    """SIGTERM to one process, with its workers, in a step.

    Attributes:
        epoch: counted from 0.
        batch: of the epoch, or of its validation.
        hook: 'training_step' or 'validation_step'.
        rank: of the process.
    """

    epoch: int
    batch: int
    hook: str = 'training_step'
    rank: int = 0

    def __call__(self) -> None:
        step = getattr(DetectorModule, self.hook)

        def step_and_signal(module: DetectorModule, batch: dict, batch_idx: int) -> torch.Tensor:
            if (module.current_epoch, batch_idx, module.global_rank) == (self.epoch, self.batch, self.rank):
                os.killpg(0, signal.SIGTERM)
            return step(module, batch, batch_idx)

        setattr(DetectorModule, self.hook, step_and_signal)


@dataclass
class KillInWrite:
    """kill -9 when half of the n-th checkpoint has reached the disk."""

    number: int

    def __call__(self) -> None:
        self.written = 0

        def cut(descriptor: int) -> None:
            self.written += 1
            if self.written == self.number:
                os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)

        os.fsync = cut


@dataclass
class NotFinite:
    """NaN in a parameter, in a module's output or in a parameter's gradient, from a step on.

    Attributes:
        kind: 'parameter', 'output' or 'gradient'.
        name: of the parameter or module in the detector.
        step: counted from 0.
        rank: of the process.
    """

    kind: str
    name: str
    step: int
    rank: int = 0

    def __call__(self) -> None:
        step = DetectorModule.training_step

        def plant_and_step(module: DetectorModule, batch: dict, batch_idx: int) -> torch.Tensor:
            if (module.global_step, module.global_rank) == (self.step, self.rank):
                self._plant(module.detector)
            return step(module, batch, batch_idx)

        DetectorModule.training_step = plant_and_step

    def _plant(self, detector: torch.nn.Module) -> None:
        if self.kind == 'output':
            detector.get_submodule(self.name).register_forward_hook(lambda module, inputs, output: output * torch.nan)
        elif self.kind == 'parameter':
            detector.get_parameter(self.name).data.view(-1)[0] = torch.nan
        else:
            detector.get_parameter(self.name).register_hook(lambda gradient: gradient * torch.nan)


@dataclass
class KeepWeights:
    """Each process writes its weights after training."""

    folder: Path

    def __call__(self) -> None:
        def keep(module: DetectorModule) -> None:
            weights = {
                name: value.full_tensor() if isinstance(value, DTensor) else value
                for name, value in module.detector.state_dict().items()
            }
            torch.save(weights, self.folder / f'{module.global_rank}.pth')

        DetectorModule.on_train_end = keep
