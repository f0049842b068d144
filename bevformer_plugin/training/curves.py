"""Loggers that let a run go on when logs can no longer be written, which matters less than a checkpoint."""

import logging
import sys
import threading
from collections.abc import Callable
from functools import partial

from lightning.pytorch.loggers.logger import Logger
from mmengine.logging import print_log


class Curves(Logger):
    """Writes curves through another logger as long as the disk has space, and reports when it stops.

    Args:
        logger: the logger that writes; it is not used again after its first error.
    """

    def __init__(self, logger: Logger) -> None:
        super().__init__()
        self.logger = logger
        self.stopped = False

    @property
    def name(self) -> str | None:
        """The name of the logger that writes."""
        return self.logger.name

    @property
    def version(self) -> int | str | None:
        """The version of the logger that writes, which names its folder."""
        return self.logger.version

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Write the values of a step."""
        self._try(lambda: self.logger.log_metrics(metrics, step))

    def log_hyperparams(self, params: dict) -> None:
        """Write nothing, because the config is saved as a file of the run."""

    def save(self) -> None:
        """Write what the logger has buffered."""
        self._try(self.logger.save)

    def finalize(self, status: str) -> None:
        """Close the file of the logger."""
        self._try(lambda: self.logger.finalize(status))

    def _try(self, write: Callable[[], None]) -> None:
        if self.stopped:
            return
        try:
            write()
        except (OSError, ValueError) as error:  # Lightning turns errors of TensorBoard into ValueError
            cause = error if isinstance(error, OSError) else error.__cause__
            if not isinstance(cause, OSError):
                raise
            self.stopped = True
            print_log(
                f'curves can no longer be written to {self.logger.log_dir} ({cause.strerror}); the run goes on '
                'without them, free space',
                logger='current',
            )


def stop_quietly(logger: logging.Logger) -> None:
    """Report a log file that cannot be written, also by TensorBoard's thread, in one line instead of a traceback."""
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handleError = partial(_detach, logger, handler)
    threading.excepthook = _ignore_full_disk


def _detach(logger: logging.Logger, handler: logging.FileHandler, record: logging.LogRecord) -> None:
    """Stop writing to a log file, and say on the console why."""
    logger.removeHandler(handler)
    print(f'{handler.baseFilename} can no longer be written ({sys.exc_info()[1]})', file=sys.stderr)


def _ignore_full_disk(arguments: threading.ExceptHookArgs) -> None:
    """Print no traceback of an error of the disk, which the main thread meets with the next value it writes."""
    if not issubclass(arguments.exc_type, OSError):
        threading.__excepthook__(arguments)
