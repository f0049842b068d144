"""The peak memory of a piece of work, in a process of its own."""
import multiprocessing
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch


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
    """Run ``work(*arguments)``, both of which can be pickled, in a fresh process.

    Raises:
        RuntimeError: if the process dies, most often because the machine has too little memory.
    """
    context = multiprocessing.get_context('spawn')
    try:
        with ProcessPoolExecutor(1, mp_context=context) as executor:
            return executor.submit(_measure, work, *arguments).result()
    except multiprocessing.context.ProcessError as error:
        raise RuntimeError('the process that was measured died; the machine may have too little memory') from error


def _measure(work: Callable, *arguments: object) -> PeakMemory:
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
