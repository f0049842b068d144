"""Writing, finding and checking the checkpoints of a run."""

from pathlib import Path

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from mmengine.logging import print_log
from torch import Tensor, nn

from bevformer_plugin.atomic_write import atomic_write
from bevformer_plugin.errors import InputError
from bevformer_plugin.weights import mismatch, read_checkpoint

from .run_settings import SETTINGS, Place, Value, check_settings, describe_going_on, refuse_other_average
from .start import NEWEST

LAST = 'last.ckpt'
ANY_BEST = 'best_*.ckpt'  # see best_checkpoint_name
NOT_FINITE = 'not_finite.ckpt'


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a temporary file and renames it, so that an interrupted write leaves the older checkpoint whole."""

    def save_checkpoint(self, checkpoint: dict, path: str, storage_options: object = None) -> None:
        """Write ``checkpoint`` to the file ``path``.

        Raises:
            OSError: if the disk is full or fails; the message names the file and the remedy.
        """
        try:
            with atomic_write(path) as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:
            # After an error of the disk, torch raises a RuntimeError of its own about the length of the file.
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
        content: content of the checkpoint.
        path: its file, for messages.
        settings: settings of the run that is to go on, see :func:`run_settings`.
        max_epochs: number of epochs after which that run ends.
        restart: whether the settings that may change are taken from ``settings`` instead of the checkpoint.

    Returns:
        The place in the training data where the run goes on, and lines for the log that describe it.

    Raises:
        InputError: if the checkpoint holds weights without the state of a run, or that of a run with other settings.
    """
    if 'loops' not in content:
        raise InputError(
            f'{path} cannot be resumed, it has no state of a Lightning run; to start from its weights '
            f'give --cfg-options load_from={path}'
        )
    try:
        place = Place(content['DetectorDataModule']['epoch'], content['DetectorDataModule']['batches'])
        step = content['global_step']
    except KeyError as error:
        raise InputError(f'{path} cannot be resumed, it lacks {error} in the state of its Lightning run') from error
    place.refuse_shorter(max_epochs, path)
    refuse_other_average('current_model_state' in content, settings, path)
    changes = check_settings((content.get('meta') or {}).get(SETTINGS), settings, place, path, restart)
    return place, describe_going_on(path, place, max_epochs, step, changes)


def checkpoint_to_resume(
    work_dir: Path, asked: str | None, patterns: tuple[str, ...] = (LAST, ANY_BEST)
) -> tuple[str | None, dict]:
    """Read the checkpoint to go on with.

    Args:
        work_dir: folder of the run.
        asked: a file, :data:`.start.NEWEST`, or None for a new run.
        patterns: file names of checkpoints, with wildcards.

    Returns:
        Path and content of the checkpoint; None and an empty dict for a new run.

    Raises:
        FileNotFoundError: if there is no such checkpoint.
        InputError: if the checkpoint is damaged.
    """
    if asked is None:
        return None, {}
    path = newest_checkpoint(work_dir, patterns) if asked == NEWEST else asked
    return path, read_checkpoint(path)


def refuse_mismatch(state: dict[str, Tensor], detector: nn.Module, path: str) -> None:
    """Refuse to go on with weights of another model than ``detector``.

    Raises:
        InputError: if names, shapes or types of tensors differ; the message names them.
    """
    problem = mismatch(state, detector.state_dict())
    if problem:
        raise InputError(f'{path} is of another model: {problem}. Resume with the config it was trained with')


def best_checkpoint_name(score: str) -> str:
    """Name the file of the checkpoint that is the best by a score.

    It is named by the score without the name of its metric: ``nuscenes/NDS`` gives ``best_NDS.ckpt``,
    ``map/paper/mIoU@0.5`` gives ``best_paper_mIoU@0.5.ckpt``.
    """
    metric, _, rest = score.partition('/')
    return f'best_{(rest or metric).replace("/", "_")}.ckpt'


def newest_checkpoint(work_dir: Path, patterns: tuple[str, ...] = (LAST, ANY_BEST)) -> str:
    """Find the newest checkpoint of a run that can be read.

    Args:
        work_dir: folder of the run.
        patterns: file names of checkpoints, with wildcards.

    Raises:
        FileNotFoundError: if no file can be read.
    """
    files = [path for pattern in patterns for path in work_dir.glob(pattern)]
    for path in sorted(files, key=lambda file: file.stat().st_mtime, reverse=True):
        try:
            read_checkpoint(str(path))
        except InputError as error:
            print_log(f'skipped: {error}', logger='current')
            continue
        return str(path)
    raise FileNotFoundError(f'nothing to resume in {work_dir}: it has no readable {" or ".join(patterns)}')
