"""Seconds of a piece of work, including what it leaves to a GPU."""

import time
from collections.abc import Callable
from typing import TypeVar

import torch

Result = TypeVar('Result')


def timed(work: Callable[[], Result], clock: Callable[[], float] = time.perf_counter) -> tuple[float, Result]:
    """Run the work, and return its seconds by a clock and its result."""
    _wait()
    begin = clock()
    result = work()
    _wait()
    return clock() - begin, result


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
