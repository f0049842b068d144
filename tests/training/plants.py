"""Accidents for the tools' processes; each is called before the tool runs."""

import os
import resource
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch.distributed.tensor import DTensor

import bevformer_plugin.training
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
    signum: ClassVar[int] = signal.SIGTERM

    def __call__(self) -> None:
        step = getattr(DetectorModule, self.hook)

        def step_and_signal(module: DetectorModule, batch: dict, batch_idx: int) -> torch.Tensor:
            if (module.current_epoch, batch_idx, module.global_rank) == (self.epoch, self.batch, self.rank):
                os.killpg(0, self.signum)
            return step(module, batch, batch_idx)

        setattr(DetectorModule, self.hook, step_and_signal)


@dataclass
class CtrlC(Sigterm):
    """The same with SIGINT, which a terminal sends to a process and its workers."""

    signum: ClassVar[int] = signal.SIGINT


@dataclass
class Kill(Sigterm):
    """The same with SIGKILL."""

    signum: ClassVar[int] = signal.SIGKILL


@dataclass
class CtrlCBefore:
    """SIGINT to the process when it is about to call a method for the first time.

    Attributes:
        owner: of the method, a class of ``bevformer_plugin.training``.
        method: its name.
    """

    owner: str
    method: str

    def __call__(self) -> None:
        owner = getattr(bevformer_plugin.training, self.owner)
        original = getattr(owner, self.method)

        def interrupt_and_call(instance: object, *arguments: object, **named: object) -> object:
            os.kill(os.getpid(), signal.SIGINT)
            return original(instance, *arguments, **named)

        setattr(owner, self.method, interrupt_and_call)


@dataclass
class FullDisk:
    """From a step on no file may grow beyond a number of bytes, as on a full disk; the console is not limited.

    Attributes:
        step: counted from 0; None is the first of this process.
        limit: bytes.
    """

    step: int | None
    limit: int

    def __call__(self) -> None:
        console = subprocess.Popen(['cat'], stdin=subprocess.PIPE)  # writes what this process could not
        for descriptor in (1, 2):
            os.dup2(console.stdin.fileno(), descriptor)
        process, leave = os.getpid(), os._exit

        def leave_after_the_last_word(status: int) -> None:
            if os.getpid() == process:
                self._wait_for(console)
            leave(status)

        os._exit = leave_after_the_last_word  # called when the process has said why it ends
        step = DetectorModule.training_step

        def fill_and_step(module: DetectorModule, batch: dict, batch_idx: int) -> torch.Tensor:
            if self.step in (None, module.global_step):
                resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit, self.limit))
            return step(module, batch, batch_idx)

        DetectorModule.training_step = fill_and_step

    def _wait_for(self, console: subprocess.Popen) -> None:
        sys.stdout.flush(), sys.stderr.flush()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in (1, 2):
            os.dup2(nowhere, descriptor)
        console.communicate(timeout=30)


@dataclass
class AfterSteps:
    """A signal to the process with its workers some time after it began with a step, whatever it then does.

    Attributes:
        steps: of this process before the clock starts.
        seconds: from then on.
        signum: the signal.
    """

    steps: int
    seconds: float
    signum: int

    def __call__(self) -> None:
        self.taken = 0
        step = DetectorModule.training_step

        def count_and_step(module: DetectorModule, batch: dict, batch_idx: int) -> torch.Tensor:
            if self.taken == self.steps:
                threading.Timer(self.seconds, os.killpg, (0, self.signum)).start()
            self.taken += 1
            return step(module, batch, batch_idx)

        DetectorModule.training_step = count_and_step


class SigtermAtBirth:
    """SIGTERM to each process that is forked, before it does anything."""

    def __call__(self) -> None:
        os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGTERM))


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
