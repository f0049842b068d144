"""The tools in real processes, forked from one that has made the imports where there is no GPU."""

import multiprocessing
import os
import runpy
import socket
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from pathlib import Path

from tests.helpers.repository import REPO

NANO = 'configs/bevformer/bevformer_nano.py'
LONG = 'projects/synthetic_world/bevformer_nano_long.py'  # the same model; colours of its training images are random
SECONDS = 180


@dataclass
class Finished:
    """One ended process."""

    returncode: int
    output: str

    @property
    def last_line(self) -> str:
        return self.output.rstrip().splitlines()[-1]


def run_tool(tool: str, *arguments: object, processes: int = 1, plant: Callable | None = None) -> Finished:
    """Run ``tools/<tool>.py``; of several processes, started as torchrun does, the first one's end is returned.

    Args:
        tool: its name.
        arguments: its command line; of options with one key the last one counts.
        processes: how many; they are told ``--devices`` and ``--accelerator cpu``.
        plant: called in each process before the tool runs.
    """
    context = _context()
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder, str(rank)) for rank in range(processes)]
        if processes > 1:
            arguments = ('--devices', processes, '--accelerator', 'cpu', *arguments)
        command = [f'tools/{tool}.py', *last_of_each_option([*map(str, arguments)])]
        port = _free_port()
        group = [
            context.Process(target=_run, args=(command, plant, outputs[rank], rank, processes, port))
            for rank in range(processes)
        ]
        for process in group:
            process.start()
        try:
            for process in group:
                process.join(SECONDS)
            assert all(process.exitcode is not None for process in group), outputs[0].read_text()
        finally:
            for process in group:
                process.kill()
        for process, output in zip(group[1:], outputs[1:], strict=True):
            assert process.exitcode == 0 or group[0].exitcode != 0, output.read_text()
        return Finished(group[0].exitcode, outputs[0].read_text())


def _context() -> BaseContext:
    """Return what starts the processes, forked where that is possible.

    MMEngine asks for GPUs when it is imported, and a fork of a process that has asked the driver can use none.
    """
    import torch

    if torch.cuda.is_available():
        return multiprocessing.get_context('spawn')
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['bevformer_plugin.training', 'bevformer_plugin.evaluation', 'runpy'])
    return context


def last_of_each_option(arguments: list[str]) -> list[str]:
    """Leave out ``key=value`` where a later one has the same key: tests change options that they share."""
    last = {argument.partition('=')[0]: index for index, argument in enumerate(arguments) if '=' in argument}
    return [
        argument
        for index, argument in enumerate(arguments)
        if '=' not in argument or last[argument.partition('=')[0]] == index
    ]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]


def _run(command: list[str], plant: Callable | None, output: Path, rank: int, processes: int, port: int) -> None:
    import torch
    from lightning.pytorch.utilities import rank_zero_only

    os.setsid()  # signals may go to the process with its workers
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1), os.dup2(file, 2)
    os.chdir(REPO)
    sys.argv = command
    torch.set_num_threads(1)
    if processes > 1:
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            GROUP_RANK='0',
            WORLD_SIZE=str(processes),
            LOCAL_WORLD_SIZE=str(processes),
            MASTER_ADDR='127.0.0.1',
            MASTER_PORT=str(port),
            TORCHELASTIC_RUN_ID='test',
        )
        rank_zero_only.rank = rank  # Lightning has read the environment in the import
    if plant is not None:
        plant()
    runpy.run_path(command[0], run_name='__main__')
