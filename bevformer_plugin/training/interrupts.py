"""Signal handlers for the time before training: Ctrl-C and SIGTERM end a process with one line, not a traceback."""

import os
import signal
from collections.abc import Callable
from types import FrameType

from lightning.pytorch.utilities import rank_zero_only

SIGNAL_NAMES: dict[int, str] = {signal.SIGINT: 'Ctrl-C', signal.SIGTERM: 'SIGTERM'}


def exit_on_signals(what_is_left: Callable[[], str]) -> None:
    """Let SIGINT and SIGTERM raise :class:`SystemExit` with status 130 and 143, so that files are closed and put back.

    Worker processes that are forked afterwards ignore SIGINT, which a terminal sends to them as well.

    Args:
        what_is_left: called at the moment of the signal; returns the end of the line that the first of several
            processes prints.
    """
    installing_process = os.getpid()

    def leave(signum: int, frame: FrameType | None) -> None:
        if os.getpid() != installing_process:
            if signum == signal.SIGTERM:
                os._exit(128 + signum)
            return
        if rank_zero_only.rank:
            raise SystemExit(0)  # for any other status a launcher would kill the first process
        os.write(2, f'stopped by {SIGNAL_NAMES[signum]}; {what_is_left()}\n'.encode())
        raise SystemExit(128 + signum)

    for signum in SIGNAL_NAMES:
        signal.signal(signum, leave)
