"""Work in a process of its own."""

import logging
import multiprocessing
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType

from mmengine.logging import MMLogger


class FreshProcess:
    """A process that shares nothing with this one and lives as long as its ``with`` block.

    Args:
        quiet: only errors are logged.
    """

    def __init__(self, quiet: bool = True) -> None:
        self._executor = ProcessPoolExecutor(1, multiprocessing.get_context('spawn'), quiet_logs if quiet else None)

    def run(self, work: Callable, *arguments: object) -> object:
        """What ``work(*arguments)`` returns; all of it can be pickled, and ``work`` is a function of a module.

        Raises:
            ChildProcessError: if the process dies, most often because the machine has too little memory.
        """
        try:
            return self._executor.submit(work, *arguments).result()
        except BrokenProcessPool as error:
            raise ChildProcessError('the process died; the machine may have too little memory') from error

    def __enter__(self) -> 'FreshProcess':
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._executor.shutdown()


def in_fresh_process(work: Callable, *arguments: object, quiet: bool = True) -> object:
    """What ``work(*arguments)`` returns in a :class:`FreshProcess` that does nothing else."""
    with FreshProcess(quiet) as process:
        return process.run(work, *arguments)


def quiet_logs() -> None:
    """Log errors alone: tables of datasets, notes and warnings of the trainer would bury the figures."""
    warnings.simplefilter('ignore')
    MMLogger.get_instance('bevformer_plugin', log_level='ERROR')
    logging.getLogger('lightning.pytorch').setLevel(logging.ERROR)
