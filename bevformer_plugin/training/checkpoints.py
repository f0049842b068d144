"""Checkpoints of a run: written whole or not at all, and found again."""

from pathlib import Path

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from mmengine.logging import print_log
from torch import Tensor, nn

from bevformer_plugin.atomic_write import atomic_write
from bevformer_plugin.errors import InputError
from bevformer_plugin.weights import mismatch, read_checkpoint

from .run_settings import SETTINGS, Place, Value, check_settings, describe_going_on, refuse_other_average

LAST, BEST = 'last.ckpt', 'best_NDS.ckpt'
NOT_FINITE = 'not_finite.ckpt'


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes to a temporary neighbour and renames it, so that an interrupted write leaves the older file whole."""

    def save_checkpoint(self, checkpoint: dict, path: str, storage_options: object = None) -> None:
        """Write ``checkpoint`` to ``path``.

        Raises:
            OSError: if the disk is full or fails, naming the file and what to do.
        """
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:
            # torch hides the first error behind one of its own, about the length of the file.
            cause = error if isinstance(error, OSError) else error.__context__
            if not isinstance(cause, OSError):
                raise
            before = 'the one before it is whole' if Path(path).is_file() else 'there is none before it'
            raise OSError(
                f'checkpoint {path} cannot be written ({cause.strerror}), {before}: free space, then go on with '
                '--resume'
            ) from error


def check_resumable(
    content: dict, path: str, settings: dict[str, Value], max_epochs: int, restart: bool
) -> tuple[Place, str]:
    """Refuse to go on with a checkpoint of a Lightning run that does not belong to the config.

    Args:
        content: of the checkpoint.
        path: of the checkpoint.
        settings: of the run that is to go on, see :func:`run_settings`.
        max_epochs: its end.
        restart: whether the settings that may change are taken from ``settings``.

    Returns:
        Where the run goes on, and lines that say so.

    Raises:
        InputError: if the checkpoint holds weights without the state of a run, or one of other settings.
    """
    if 'loops' not in content:
        raise InputError(
            f'{path} cannot be resumed, it has no state of a Lightning run; to start from its weights '
            f'give --cfg-options load_from={path}'
        )
    data = content['DetectorDataModule']
    place = Place(data['epoch'], data['batches'])
    place.refuse_shorter(max_epochs, path)
    refuse_other_average('current_model_state' in content, settings, path)
    changes = check_settings((content.get('meta') or {}).get(SETTINGS), settings, place, path, restart)
    return place, describe_going_on(path, place, max_epochs, content['global_step'], changes)


def checkpoint_to_resume(
    work_dir: Path, asked: str | None, patterns: tuple[str, ...] = (LAST, BEST)
) -> tuple[str | None, dict]:
    """The path and the content of the checkpoint to go on with; None and nothing for a new run.

    Args:
        work_dir: folder of the run.
        asked: a file, 'newest' for the newest of the folder that can be read, or None.
        patterns: of the file names of checkpoints.

    Raises:
        FileNotFoundError: if there is none.
        InputError: if it is damaged.
    """
    if asked is None:
        return None, {}
    path = newest_checkpoint(work_dir, patterns) if asked == 'newest' else asked
    return path, read_checkpoint(path)


def refuse_mismatch(state: dict[str, Tensor], detector: nn.Module, path: str) -> None:
    """Refuse to go on with weights of another model.

    Raises:
        InputError: naming what differs.
    """
    problem = mismatch(state, detector.state_dict())
    if problem:
        raise InputError(f'{path} is of another model: {problem}. Resume with the config it was trained with')


def newest_checkpoint(work_dir: Path, patterns: tuple[str, ...] = (LAST, BEST)) -> str:
    """The newest whole checkpoint of a run.

    Args:
        work_dir: folder of the run.
        patterns: of file names.

    Raises:
        FileNotFoundError: if there is none.
    """
    files = [path for pattern in patterns for path in work_dir.glob(pattern)]
    for path in sorted(files, key=lambda file: file.stat().st_mtime, reverse=True):
        try:
            read_checkpoint(str(path))
        except ValueError as error:
            print_log(f'skipped: {error}', logger='current')
            continue
        return str(path)
    raise FileNotFoundError(f'nothing to resume in {work_dir}: it has no readable {" or ".join(patterns)}')
