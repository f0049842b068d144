"""Keeping the memory of freed tensors in the process, for CPUs, where the C library allocates tensors."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Take large blocks from the heap, as glibc does with small ones, and do not shrink it below 2 GiB.

    Memory that was handed back to the system returns as pages that are cleared one by one, which takes up to a third
    of the time of a frame. The change holds for the whole process from now on. With another C library than glibc
    nothing changes.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, 'mallopt'):
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
