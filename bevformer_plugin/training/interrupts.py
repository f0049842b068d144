"""Ctrl-C and SIGTERM outside of steps: they end a process with one line instead of a traceback."""

import os
import signal
from collections.abc import Callable
from types import FrameType

from lightning.pytorch.utilities import rank_zero_only

NAMES = {signal.SIGINT: 'Ctrl-C', signal.SIGTERM: 'SIGTERM'}


def exit_on_signals(what_is_left: Callable[[], str]) -> None:
    """Let SIGINT and SIGTERM raise :class:`SystemExit` with status 130 and 143, so that files are closed and put back.

    Workers that are forked afterwards ignore SIGINT, which terminals send to them as well.

    Args:
        what_is_left: gives the end of the line that the first of several processes prints, in the moment of the
            signal.
    """
    process = os.getpid()

    def leave(signum: int, frame: FrameType | None) -> None:
        if os.getpid() != process:
            if signum == signal.SIGTERM:
                os._exit(128 + signum)
            return
        if rank_zero_only.rank:
            raise SystemExit(0)  # launchers kill the first process when another one ends with an error
        os.write(2, f'stopped by {NAMES[signum]}; {what_is_left()}\n'.encode())
        raise SystemExit(128 + signum)

    for signum in NAMES:
        signal.signal(signum, leave)
