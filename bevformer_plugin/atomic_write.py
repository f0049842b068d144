"""Writing files that are either complete or not there, and finding out in time that one cannot be written."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from bevformer_plugin.errors import InputError


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a binary file for writing that appears under ``path`` only once the block has ended without an error.

    The bytes go to a hidden file beside ``path``, which is flushed to the disk and then renamed. After any error (a
    full disk, Ctrl-C) the hidden file is removed, and an older file at ``path`` stays as it was. The folder is made if
    needed.

    Yields:
        The open binary file.
    """
    target = Path(path)
    unfinished = target.with_name(f'.{target.name}.{os.getpid()}.tmp')
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(unfinished, 'wb') as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)


def refuse_unwritable(path: str | os.PathLike[str], *read: str | os.PathLike[str] | None) -> None:
    """Refuse a file that a long run writes at its end and that cannot be written; nothing is made or changed.

    Args:
        path: of the file.
        read: files that the run reads, which it must not replace; None stands for one that was not given.

    Raises:
        InputError: the file is one of those that are read.
        OSError: the file cannot be written.
    """
    for source in read:
        if source is not None and os.path.exists(path) and os.path.exists(source) and os.path.samefile(path, source):
            raise InputError(f'{path} is read, and would be replaced by what is written: write elsewhere with --out')
    try:
        if os.path.isdir(path) or str(path).endswith(os.sep):
            raise IsADirectoryError(errno.EISDIR, 'it is a folder')
        _try_to_write(Path(path).absolute().parent)
    except OSError as error:
        raise OSError(f'{path} cannot be written ({error.strerror}): write elsewhere with --out') from error


def refuse_unwritable_folder(folder: str | os.PathLike[str]) -> None:
    """Refuse a folder that files cannot be written to, which need not exist yet; nothing is made or changed.

    Raises:
        OSError: naming it.
    """
    try:
        _try_to_write(Path(folder).absolute())
    except OSError as error:
        raise OSError(f'nothing can be written to {folder} ({error.strerror}): write elsewhere with --out') from error


def _try_to_write(folder: Path) -> None:
    """Try to write to a folder, or to the nearest one above it that exists."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not existing.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f'{existing} is a file')
    tempfile.TemporaryFile(dir=existing).close()
