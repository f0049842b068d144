"""Checkpoints: written whole or not at all, read without running code, never loaded in part."""
from pathlib import Path

import numpy as np
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from mmengine.logging import HistoryBuffer, print_log
from torch import nn

from bevformer_plugin.datasets.infos import atomic_write

LAST, BEST = 'last.ckpt', 'best_NDS.ckpt'
NOT_FINITE = 'not_finite.ckpt'
CHECKPOINTS = (LAST, BEST, NOT_FINITE)
# What MMEngine's Runner puts into its checkpoints beside tensors.
SAFE_GLOBALS = [HistoryBuffer, np.core.multiarray._reconstruct, np.ndarray, np.dtype, np.core.multiarray.scalar,
                *(type(np.dtype(kind)) for kind in ('float64', 'float32', 'int64', 'int32', 'bool')), getattr]


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes to a temporary neighbour and renames it, so that an interrupted write leaves the older file whole."""

    def save_checkpoint(self, checkpoint: dict, path: str, storage_options: object = None) -> None:
        """Write ``checkpoint`` to ``path``."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            torch.save(checkpoint, file)


def read_checkpoint(path: str) -> dict:
    """Load a checkpoint on the CPU without running code from it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged or no checkpoint.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'checkpoint {path} does not exist')
    try:
        with torch.serialization.safe_globals(SAFE_GLOBALS):
            content = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # torch raises many kinds for damaged files
        raise ValueError(f'{path} is damaged or no checkpoint: {error}') from error
    if not isinstance(content, dict):
        raise ValueError(f'{path} holds a {type(content).__name__}, not a checkpoint or a state dict')
    return content


def load_weights(detector: nn.Module, path: str) -> None:
    """Load all weights of a checkpoint of Lightning, of MMEngine's Runner, or a plain state dict.

    Raises:
        ValueError: if the weights are of another model.
    """
    content = read_checkpoint(path)
    state = content.get('state_dict', content)
    own = detector.state_dict()
    missing = sorted(set(own) - set(state))
    unexpected = sorted(set(state) - set(own))
    reshaped = [f'{key} ({tuple(state[key].shape)} in the file, {tuple(own[key].shape)} in the model)'
                for key in own if key in state and own[key].shape != state[key].shape]
    if missing or unexpected or reshaped:
        found = [f'{len(keys)} {what} (first: {", ".join(keys[:3])})' for what, keys in
                 (('missing', missing), ('unexpected', unexpected), ('of another shape', reshaped)) if keys]
        raise ValueError(f'{path} is of another model: ' + '; '.join(found) +
                         '. Test it with the config it was trained with')
    detector.load_state_dict(state)
    print_log(f'weights of {path} loaded', logger='current')


def publish_checkpoint(source: str, target: str) -> None:
    """Keep the weights and what they belong to; leave out optimizer and loop state.

    Raises:
        FileExistsError: if ``target`` exists.
    """
    content = read_checkpoint(source)
    if Path(target).exists():
        raise FileExistsError(f'{target} exists')
    with atomic_write(target) as file:
        torch.save({key: content[key] for key in ('state_dict', 'meta')}, file)


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
        raise ValueError(f'{path} cannot be resumed, it has no state of a Lightning run; to start from its weights '
                         f'give --cfg-options load_from={path}')
    print_log(f"resuming from {path} (epoch {content['epoch'] + 1}, after step {content['global_step']})",
              logger='current')
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
