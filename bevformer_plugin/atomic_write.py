"""Writing files that are either complete or not there."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a binary file for writing that appears under ``path`` only once the block has ended without an error.

    The bytes go to a hidden file beside ``path``, which is flushed to the disk and then renamed. After any error (a
    full disk, Ctrl-C) the hidden file is removed, and an older file at ``path`` stays as it was.

    Yields:
        The open binary file.
    """
    target = Path(path)
    unfinished = target.with_name(f'.{target.name}.{os.getpid()}.tmp')
    try:
        with open(unfinished, 'wb') as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)
