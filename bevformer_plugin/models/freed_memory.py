"""What the C library does with the memory that large tensors leave; on CPUs alone, where it is the allocator."""
import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # of glibc's malloc.h
MIB = 2 ** 20


def keep_freed_memory() -> None:
    """Take large blocks from the heap, as glibc does with small ones, and do not shrink it below 2 GiB.

    Handed back, memory comes again as pages that the system clears one by one, which takes up to a third of the time
    of a frame. Holds for the whole process; nothing changes under another C library.
    """
    _configure({M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2048 * MIB - 1})


def return_freed_memory() -> None:
    """Go back to what glibc does by itself in a process that has freed large blocks."""
    _configure({M_MMAP_MAX: 65536, M_MMAP_THRESHOLD: 32 * MIB, M_TRIM_THRESHOLD: 64 * MIB})


def _configure(settings: dict[int, int]) -> None:
    libc = ctypes.CDLL(None)
    if hasattr(libc, 'mallopt'):
        for name, value in settings.items():
            libc.mallopt(name, value)
