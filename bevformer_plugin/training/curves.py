"""Logs of a run that cannot be written do not end it: what ends it is a checkpoint that cannot."""

import logging
import sys
import threading
from collections.abc import Callable

from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger
from mmengine.logging import print_log


class Curves(Logger):
    """Writes curves with another logger for as long as there is space, and says when it stops.

    Args:
        logger: that writes; it is not used again after its first error.
    """

    def __init__(self, logger: CSVLogger | TensorBoardLogger) -> None:
        super().__init__()
        self.logger = logger
        self.stopped = False

    @property
    def name(self) -> str:
        """The logger's."""
        return self.logger.name

    @property
    def version(self) -> int | str:
        """The logger's."""
        return self.logger.version

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Write values of a step."""
        self._try(lambda: self.logger.log_metrics(metrics, step))

    def log_hyperparams(self, params: dict) -> None:
        """Write nothing: the config is a file of the run."""

    def save(self) -> None:
        """Write what was kept back."""
        self._try(self.logger.save)

    def finalize(self, status: str) -> None:
        """Close the file."""
        self._try(lambda: self.logger.finalize(status))

    def _try(self, write: Callable[[], None]) -> None:
        if self.stopped:
            return
        try:
            write()
        except (OSError, ValueError) as error:  # Lightning takes all errors of TensorBoard for those of values
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
    """Let a log file that cannot be written, and TensorBoard's thread, say so in one line instead of a traceback."""
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handleError = _detach(logger, handler)
    threading.excepthook = _ignore_full_disk


def _detach(logger: logging.Logger, handler: logging.FileHandler) -> Callable[[logging.LogRecord], None]:
    def detach(record: logging.LogRecord) -> None:
        logger.removeHandler(handler)
        print(f'{handler.baseFilename} can no longer be written ({sys.exc_info()[1]})', file=sys.stderr)

    return detach


def _ignore_full_disk(arguments: threading.ExceptHookArgs) -> None:
    """The thread's error reaches the main one with the next value."""
    if not issubclass(arguments.exc_type, OSError):
        threading.__excepthook__(arguments)
