"""Running functions in a process of their own."""

import logging
import multiprocessing
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import ParamSpec, TypeVar

from mmengine.logging import MMLogger

Arguments = ParamSpec('Arguments')
Result = TypeVar('Result')


class FreshProcess:
    """A process that shares nothing with this one and lives as long as its ``with`` block.

    Args:
        quiet: whether the process logs only errors.
    """

    def __init__(self, quiet: bool = True) -> None:
        self._executor = ProcessPoolExecutor(1, multiprocessing.get_context('spawn'), quiet_logs if quiet else None)

    def run(self, work: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs) -> Result:
        """Run ``work`` in the process and return its result.

        Args:
            work: a function of a module.
            *arguments: arguments of ``work``, which can be pickled, as can its result.
            **named: likewise.

        Raises:
            ChildProcessError: if the process dies, most often because the machine has too little memory.
        """
        try:
            return self._executor.submit(work, *arguments, **named).result()
        except BrokenProcessPool as error:
            raise ChildProcessError('the process died; the machine may have too little memory') from error

    def __enter__(self) -> 'FreshProcess':
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._executor.shutdown()


def in_fresh_process(work: Callable[..., Result], *arguments: object, quiet: bool = True) -> Result:
    """Run ``work(*arguments)`` in a :class:`FreshProcess` that does nothing else, and return its result."""
    with FreshProcess(quiet) as process:
        return process.run(work, *arguments)


def quiet_logs() -> None:
    """Log only errors, since the tables of datasets and the notes of the trainer would bury the figures."""
    warnings.simplefilter('ignore')
    MMLogger.get_instance('bevformer_plugin', log_level='ERROR')
    logging.getLogger('lightning.pytorch').setLevel(logging.ERROR)
