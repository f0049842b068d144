"""Seconds of a piece of work, including what it leaves to a GPU."""

import time
from collections.abc import Callable
from typing import TypeVar

import torch

Result = TypeVar('Result')


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    """Run the work, and return its seconds by the clock and its result."""
    _wait()
    begin = time.perf_counter()
    result = work()
    _wait()
    return time.perf_counter() - begin, result


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
