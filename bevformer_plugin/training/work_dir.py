"""The folder of a run: one live run at a time, and an earlier one is kept until its successor has a checkpoint."""

import fcntl
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only
from mmengine.logging import print_log

from .checkpoints import BEST, LAST, NOT_FINITE
from .start import RunStart

LOCK = 'running.lock'
REPLACED = '.replaced'  # a whole earlier run that --overwrite replaces
MOVING = '.moving'  # files on their way to or from it; they belong to the run in the folder
FAILED = 'failed'  # what a run left that was to replace another one and has no checkpoint
CHECKPOINTS = (LAST, BEST, 'epoch_*.pth', 'iter_*.pth')  # the last two are those of MMEngine's Runner
RUN_FILES = (
    *CHECKPOINTS,
    NOT_FINITE,
    'best_nuscenes_NDS_*.pth',
    'last_checkpoint',
    'config.py',
    'train.log',
    'tensorboard',
    'csv',
    'csv_resumed_*',
    '[0-9]' * 8 + '_' + '[0-9]' * 6,  # the folders that MMEngine's Runner names by the time
)


def check_work_dir(start: RunStart) -> None:
    """Refuse a folder that a run cannot have, before anything long.

    Raises:
        FileExistsError: if it has files of another run, or is a file.
        FileNotFoundError: if the run to resume was killed before its first checkpoint, and the one waits in it that it
            was to replace.
        OSError: if it cannot be written to.
    """
    folder = start.work_dir
    if rank_zero_only.rank > 0:
        return
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f'{folder} is a file, not a folder: give another --work-dir')
    if folder.is_dir() and _is_used(folder) and not (start.overwrite or start.resume):
        raise FileExistsError(
            f'{folder} has files of another run: continue it with --resume, replace it with '
            '--overwrite, or give another --work-dir'
        )
    if start.resume and (folder / REPLACED).is_dir() and not _has_checkpoint(folder):
        raise FileNotFoundError(
            f'{folder} has no checkpoint of the run that was to replace the one in {folder / REPLACED}: start it '
            'again with --overwrite, or move the files of the earlier one back'
        )
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())
    try:
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        raise OSError(
            f'{folder} cannot be written to ({error.strerror}): free space or change its rights, or give another '
            '--work-dir'
        ) from error


@contextmanager
def occupied(start: RunStart, config_name: str) -> Iterator[None]:
    """Hold the folder of a run; an earlier run in it is moved aside if ``start.overwrite``.

    Of several processes only the first does so. The earlier run waits in ``.replaced`` until :func:`drop_replaced`.
    If the block ends before that, it is put back, and what the new run left goes to ``failed``.

    Args:
        start: how the run begins.
        config_name: the file's name under which MMEngine's Runner keeps the config.

    Raises:
        FileExistsError: if a live process holds the folder.
    """
    folder = start.work_dir
    with nullcontext() if rank_zero_only.rank > 0 else _locked(folder):
        if rank_zero_only.rank > 0:
            yield
            return
        for unfinished in folder.glob('.*.ckpt.*.tmp'):
            unfinished.unlink()  # of a process killed while it wrote
        _settle(folder, config_name)
        if start.overwrite:
            _move(_run_files(folder, config_name), folder / MOVING)
            (folder / MOVING).rename(folder / REPLACED)
        try:
            yield
        finally:
            if (folder / REPLACED).is_dir():
                _put_back(folder, config_name)


def drop_replaced(folder: Path) -> None:
    """Delete the earlier run that waits to be replaced, since the new one has written its first checkpoint."""
    shutil.rmtree(folder / REPLACED, ignore_errors=True)


def _settle(folder: Path, config_name: str) -> None:
    """Undo what a killed process has left half done."""
    if (folder / MOVING).is_dir():
        _move((folder / MOVING).iterdir(), folder)
        (folder / MOVING).rmdir()
    if not (folder / REPLACED).is_dir():
        return
    if _has_checkpoint(folder):
        drop_replaced(folder)
    else:
        _put_back(folder, config_name)


def _put_back(folder: Path, config_name: str) -> None:
    left = _run_files(folder, config_name)
    if left:
        shutil.rmtree(folder / FAILED, ignore_errors=True)
        _move(left, folder / FAILED)
    (folder / REPLACED).rename(folder / MOVING)
    files = list((folder / MOVING).iterdir())
    _move(files, folder)
    (folder / MOVING).rmdir()
    if files:
        print_log(
            f'{folder} has the earlier run again, since the new one has no checkpoint'
            + (f'; what it left is in {folder / FAILED}' if left else ''),
            logger='current',
        )


def _move(files: Iterator[Path] | list[Path], target: Path) -> None:
    target.mkdir(exist_ok=True)
    for file in list(files):
        file.rename(target / file.name)


def _run_files(folder: Path, config_name: str) -> list[Path]:
    """What a run of either engine writes."""
    return sorted({path for pattern in (*RUN_FILES, config_name) for path in folder.glob(pattern)})


def _has_checkpoint(folder: Path) -> bool:
    return any(any(folder.glob(pattern)) for pattern in CHECKPOINTS)


def _is_used(folder: Path) -> bool:
    return any(path.name != LOCK for path in folder.iterdir())


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep others out of the folder; the system frees the lock of a killed process, and workers do not inherit it."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, 'a+') as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            file.seek(0)
            raise FileExistsError(
                f'{folder} is in use: {file.read() or "another process"} trains there; wait for its end, or give '
                'another --work-dir'
            ) from error
        file.truncate(0)
        file.write(f'process {os.getpid()} on {socket.gethostname()}')
        file.flush()
        try:
            yield
        finally:
            (folder / LOCK).unlink(missing_ok=True)
