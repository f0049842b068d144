"""Files that are either complete or not there."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """Open a binary file for writing that appears under ``path`` only once the block has ended without an error.

    The bytes go to a hidden neighbour of ``path``, reach the disk, and the neighbour is renamed. After any error (disk
    full, Ctrl-C) the neighbour is removed and an older file at ``path`` is untouched.

    Yields:
        The open binary file.
    """
    path = Path(path)
    unfinished = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        with open(unfinished, 'wb') as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
