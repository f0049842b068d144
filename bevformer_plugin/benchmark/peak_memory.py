"""The peak memory of a piece of work, in a process of its own."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from .fresh_process import in_fresh_process


@dataclass(frozen=True)
class PeakMemory:
    """In bytes.

    Attributes:
        peak: the most that was held: on a GPU by the allocator, on a CPU by the whole process.
        before: what the process held before the work, mostly libraries; 0 on a GPU.
    """

    peak: int
    before: int


def peak_memory(work: Callable, *arguments: object) -> PeakMemory:
    """Run ``work(*arguments)`` in a fresh process; arguments and errors as of :func:`.in_fresh_process`."""
    return in_fresh_process(measure_peak, work, *arguments)


def measure_peak(work: Callable, *arguments: object) -> PeakMemory:
    """Run ``work(*arguments)`` here, in a process that has not held more yet."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        work(*arguments)
        return PeakMemory(torch.cuda.max_memory_allocated(), 0)
    before = _most_resident()
    work(*arguments)
    return PeakMemory(_most_resident(), before)


def _most_resident() -> int:
    """Of this process, in bytes. ``getrusage`` would count what its parent held when it was started."""
    return int(re.search(r'VmHWM:\s*(\d+) kB', Path('/proc/self/status').read_text())[1]) * 1024
