"""Work in a process of its own."""
import logging
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from mmengine.logging import MMLogger


def in_fresh_process(work: Callable, *arguments: object, quiet: bool = True) -> object:
    """What ``work(*arguments)`` returns; all of it can be pickled.

    Args:
        work: a function of a module.
        arguments: its arguments.
        quiet: only errors are logged.

    Raises:
        RuntimeError: if the process dies, most often because the machine has too little memory.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context('spawn'), quiet_logs if quiet else None) as executor:
        try:
            return executor.submit(work, *arguments).result()
        except BrokenProcessPool as error:
            raise RuntimeError('the process died; the machine may have too little memory') from error


def quiet_logs() -> None:
    """Log errors alone: tables of datasets and notes of the trainer would bury the figures."""
    MMLogger.get_instance('bevformer_plugin', log_level='ERROR')
    logging.getLogger('lightning.pytorch').setLevel(logging.ERROR)
