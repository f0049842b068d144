"""Measuring the peak memory of a function, in a process of its own."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from .fresh_process import in_fresh_process


@dataclass(frozen=True)
class PeakMemory:
    """The memory that a function needed, in bytes.

    Attributes:
        peak: the largest amount held at any time, by the allocator of a GPU if the function used one, else by the
            whole process.
        before: the amount that the process held before, mostly for libraries; 0 on a GPU.
    """

    peak: int
    before: int


def peak_memory(work: Callable, *arguments: object) -> PeakMemory:
    """Measure ``work(*arguments)`` in a fresh process, see :func:`.in_fresh_process`."""
    return in_fresh_process(measure_peak, work, *arguments)


def measure_peak(work: Callable, *arguments: object) -> PeakMemory:
    """Measure ``work(*arguments)`` in this process, which must not have held more memory before."""
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    before = _most_resident()
    work(*arguments)
    if torch.cuda.is_initialized() and torch.cuda.max_memory_allocated():
        return PeakMemory(torch.cuda.max_memory_allocated(), 0)
    return PeakMemory(_most_resident(), before)


def _most_resident() -> int:
    """Read the most memory that this process has held, in bytes.

    ``getrusage`` would include the memory that the parent process held when it started this one.

    Raises:
        OSError: if the system does not tell it, as others than Linux.
    """
    most = re.search(r'VmHWM:\s*(\d+) kB', Path('/proc/self/status').read_text())
    if most is None:
        raise OSError('/proc/self/status has no VmHWM, the most memory that a process has held: measure on Linux')
    return int(most[1]) * 1024
