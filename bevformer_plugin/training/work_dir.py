"""The folder of a run, which one run uses at a time and which keeps a replaced run until the new one is safe."""

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

from .checkpoints import ANY_BEST, LAST, NOT_FINITE
from .start import NEWEST, RunStart

LOCK = 'running.lock'
REPLACED = '.replaced'  # holds the whole earlier run that --overwrite replaces
MOVING = '.moving'  # holds files of the run in the folder while they are moved to or from .replaced
FAILED = 'failed'  # holds the files of a run that was to replace an earlier one and ended without a checkpoint
CHECKPOINTS = (LAST, ANY_BEST, 'epoch_*.pth', 'iter_*.pth')  # MMEngine's Runner writes the last two
RUN_FILES = (
    *CHECKPOINTS,
    NOT_FINITE,
    'best_nuscenes_*.pth',
    'best_map_*.pth',
    'last_checkpoint',
    'config.py',
    'train.log',
    'tensorboard',
    'csv',
    'csv_resumed_*',
    '[0-9]' * 8 + '_' + '[0-9]' * 6,  # MMEngine's Runner names its folders by the time
)


def check_work_dir(start: RunStart) -> None:
    """Refuse a folder that a run cannot use, before anything long.

    Raises:
        FileExistsError: if the folder has files of another run than the one that goes on, or is a file.
        FileNotFoundError: if the run to resume was to replace an earlier one and was killed before its first
            checkpoint.
        OSError: if the folder cannot be written to.
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
    if _has_checkpoint(folder) and start.resume is not None and not _lies_in(folder, start.resume):
        raise FileExistsError(
            f'{folder} has checkpoints of its own, which the run that goes on with {start.resume} would replace: give '
            'another --work-dir, or put the checkpoint into the folder if it is of the same run'
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
    """Lock the folder of a run for a block, and move an earlier run in it aside if ``start.overwrite``.

    Of several processes only the first does so. The earlier run is kept in ``.replaced`` until :func:`drop_replaced`
    deletes it. If the block ends before that, the earlier run is put back, and files of the new run go to ``failed``.

    Args:
        start: the choice how the run begins.
        config_name: the file name under which MMEngine's Runner saves the config.

    Raises:
        FileExistsError: if a running process holds the folder.
    """
    folder = start.work_dir
    with nullcontext() if rank_zero_only.rank > 0 else _locked(folder):
        if rank_zero_only.rank > 0:
            yield
            return
        for unfinished in folder.glob('.*.ckpt.*.tmp'):
            unfinished.unlink()  # left by a process that was killed while it wrote
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
    """Delete the earlier run that was kept aside; call it once the new run has written its first checkpoint."""
    shutil.rmtree(folder / REPLACED, ignore_errors=True)


def _settle(folder: Path, config_name: str) -> None:
    """Finish or undo the replacement of a run that a killed process has left half done."""
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
    """Move the earlier run back into the folder, and the files of the new one to ``failed``."""
    files_of_new_run = _run_files(folder, config_name)
    if files_of_new_run:
        shutil.rmtree(folder / FAILED, ignore_errors=True)
        _move(files_of_new_run, folder / FAILED)
    (folder / REPLACED).rename(folder / MOVING)
    files = list((folder / MOVING).iterdir())
    _move(files, folder)
    (folder / MOVING).rmdir()
    if files:
        print_log(
            f'{folder} has the earlier run again, since the new one has no checkpoint'
            + (f'; what it left is in {folder / FAILED}' if files_of_new_run else ''),
            logger='current',
        )


def _move(files: Iterator[Path] | list[Path], target: Path) -> None:
    target.mkdir(exist_ok=True)
    for file in list(files):
        file.rename(target / file.name)


def _run_files(folder: Path, config_name: str) -> list[Path]:
    """List the files in the folder that a run of either engine has written."""
    return sorted({path for pattern in (*RUN_FILES, config_name) for path in folder.glob(pattern)})


def _has_checkpoint(folder: Path) -> bool:
    return any(any(folder.glob(pattern)) for pattern in CHECKPOINTS)


def _lies_in(folder: Path, resume: str) -> bool:
    """Tell whether the checkpoint to go on with is one of the folder's own."""
    return resume == NEWEST or folder.resolve() in Path(resume).resolve().parents


def _is_used(folder: Path) -> bool:
    return any(path.name != LOCK for path in folder.iterdir())


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of the folder.

    The system frees the lock if the process is killed, and worker processes do not inherit it.
    """
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
