"""Checkpoints of a run: written whole or not at all, and found again."""

from pathlib import Path

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from mmengine.logging import print_log

from bevformer_plugin.checkpoint import read_checkpoint
from bevformer_plugin.datasets.infos import atomic_write

LAST, BEST = 'last.ckpt', 'best_NDS.ckpt'
NOT_FINITE = 'not_finite.ckpt'
CHECKPOINTS = (LAST, BEST, NOT_FINITE)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes to a temporary neighbour and renames it, so that an interrupted write leaves the older file whole."""

    def save_checkpoint(self, checkpoint: dict, path: str, storage_options: object = None) -> None:
        """Write ``checkpoint`` to ``path``."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            torch.save(checkpoint, file)


def checkpoint_to_resume(work_dir: Path, asked: str) -> str:
    """The checkpoint to go on with, announced.

    Args:
        work_dir: folder of the run.
        asked: a file, or 'newest' for the newest of the folder that can be read.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged, or holds weights without the state of a run.
    """
    path = newest_checkpoint(work_dir) if asked == 'newest' else asked
    content = read_checkpoint(path)
    if 'loops' not in content:
        raise ValueError(
            f'{path} cannot be resumed, it has no state of a Lightning run; to start from its weights '
            f'give --cfg-options load_from={path}'
        )
    print_log(
        f'resuming from {path} (epoch {content["epoch"] + 1}, after step {content["global_step"]})', logger='current'
    )
    return path


def newest_checkpoint(work_dir: Path) -> str:
    """The newest whole checkpoint of a run.

    Raises:
        FileNotFoundError: if there is none.
    """
    files = [path for path in (work_dir / LAST, work_dir / BEST) if path.is_file()]
    for path in sorted(files, key=lambda file: file.stat().st_mtime, reverse=True):
        try:
            read_checkpoint(str(path))
        except ValueError as error:
            print_log(f'skipped: {error}', logger='current')
            continue
        return str(path)
    raise FileNotFoundError(f'nothing to resume in {work_dir}: it has no readable {LAST} or {BEST}')
