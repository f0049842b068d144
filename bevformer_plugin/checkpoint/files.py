"""Checkpoint files: read without running code from them, loaded whole or not at all."""

from pathlib import Path

import numpy as np
import torch
from mmengine.logging import HistoryBuffer, print_log
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from bevformer_plugin.datasets.infos import atomic_write

# What numpy 1 and 2 write for arrays and numbers: functions of a module that has another name in each.
NUMPY_FUNCTIONS = [
    (function, f'numpy.{core}.multiarray.{function.__name__}')
    for function in (np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0])
    for core in ('core', '_core')
]
# What MMEngine's Runner puts into its checkpoints beside tensors.
SAFE_GLOBALS = [
    HistoryBuffer,
    *NUMPY_FUNCTIONS,
    np.ndarray,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ('float64', 'float32', 'int64', 'int32', 'bool')),
    getattr,
]


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


@CheckpointLoader.register_scheme(prefixes='', force=True)
def load_from_local(filename: str, map_location: str | None) -> dict:
    """MMEngine's loader of files, which since torch 2.6 cannot read what its own Runner has written.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    if not Path(filename).is_file():
        raise FileNotFoundError(f'checkpoint {filename} does not exist')
    with torch.serialization.safe_globals(SAFE_GLOBALS):
        return torch.load(filename, map_location=map_location, weights_only=True)


def mismatch(state: dict[str, Tensor], own: dict[str, Tensor]) -> str:
    """What keeps ``state`` from being loaded into a model whose state dict is ``own``; empty if nothing does."""
    missing = sorted(set(own) - set(state))
    unexpected = sorted(set(state) - set(own))
    reshaped = [
        f'{name} ({tuple(state[name].shape)} in the file, {tuple(own[name].shape)} in the model)'
        for name in own
        if name in state and own[name].shape != state[name].shape
    ]
    return '; '.join(
        f'{len(names)} {what} (first: {", ".join(names[:3])})'
        for what, names in (('missing', missing), ('unexpected', unexpected), ('of another shape', reshaped))
        if names
    )


def load_weights(detector: nn.Module, path: str) -> None:
    """Load all weights of a checkpoint of Lightning, of MMEngine's Runner, or a plain state dict.

    Raises:
        ValueError: if the weights are of another model, or in the published layout.
    """
    content = read_checkpoint(path)
    load_state(detector, content.get('state_dict', content), path)


def load_state(detector: nn.Module, state: dict[str, Tensor], path: str) -> None:
    """Load the state dict that ``path`` holds.

    Raises:
        ValueError: if it is of another model.
    """
    problem = mismatch(state, detector.state_dict())
    if problem:
        raise ValueError(
            f'{path} is of another model: {problem}. Test it with the config it was trained with; '
            'weights of the published BEVFormer go through tools/convert_checkpoint.py first'
        )
    detector.load_state_dict(state)
    print_log(f'weights of {path} loaded', logger='current')


def publish_checkpoint(source: str, target: str) -> None:
    """Keep the weights and what they belong to; leave out optimizer and loop state.

    Raises:
        FileExistsError: if ``target`` exists.
        ValueError: if ``source`` is no checkpoint of a run.
    """
    content = read_checkpoint(source)
    if Path(target).exists():
        raise FileExistsError(f'{target} exists')
    lacking = [key for key in ('state_dict', 'meta') if key not in content]
    if lacking:
        raise ValueError(f'{source} is no checkpoint of a run: it has no {" and no ".join(lacking)}')
    with atomic_write(target) as file:
        torch.save({key: content[key] for key in ('state_dict', 'meta')}, file)
