"""What the C library does with the memory that large tensors leave; on CPUs alone, where it is the allocator."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Take large blocks from the heap, as glibc does with small ones, and do not shrink it below 2 GiB.

    Handed back, memory comes again as pages that the system clears one by one, which takes up to a third of the time
    of a frame. Holds for the whole process, from now on; nothing changes under another C library.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, 'mallopt'):
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
