"""Checkpoint files: read without running code from them, loaded whole or not at all."""

import logging
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import HistoryBuffer, print_log
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from bevformer_plugin.atomic_write import atomic_write
from bevformer_plugin.errors import InputError

from .layout import require_current
from .named_rows import order_classes
from .record import TrainingRecord

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


# Beginnings of files that are often found where a checkpoint should be, and what to do about it.
FOREIGN_FILES = [
    (rb'\s*<', 'is a web page: its address asked for a login or is gone, download the file itself'),
    (rb'version https://git-lfs', 'is a Git LFS pointer, the file itself was not fetched: run git lfs pull'),
    (rb'\x1f\x8b', 'is compressed with gzip: unpack it with gunzip'),
]


def read_checkpoint(path: str) -> dict:
    """Load a checkpoint on the CPU without running code from it; the checksums of its tensors are compared.

    Raises:
        FileNotFoundError: if there is no such file.
        IsADirectoryError: if it is a folder.
        InputError: if it is damaged or no checkpoint.
    """
    if Path(path).is_dir():
        files = sorted(file.name for file in Path(path).iterdir() if file.suffix in ('.ckpt', '.pth'))
        raise IsADirectoryError(
            f'checkpoint {path} is a folder: give a file, '
            + (f'it has {", ".join(files)}' if files else 'there is none with .ckpt or .pth in it')
        )
    if not Path(path).is_file():
        raise FileNotFoundError(f'checkpoint {path} does not exist')
    _refuse_foreign(path)
    try:
        with torch.serialization.safe_globals(SAFE_GLOBALS):
            content = torch.load(path, map_location='cpu', weights_only=True)
        damaged = _damaged_record(path)
    except Exception as error:  # torch raises many kinds for damaged files
        raise InputError(f'{path} is damaged or no checkpoint: {_reason(error)}') from error
    if damaged is not None:
        raise InputError(f'{path} is damaged: the checksum of {damaged} in it is wrong; copy or download it again')
    if not isinstance(content, dict):
        raise InputError(f'{path} holds a {type(content).__name__}, not a checkpoint or a state dict')
    return content


def _refuse_foreign(path: str) -> None:
    """Refuse an empty file, and files of :data:`FOREIGN_FILES`."""
    with open(path, 'rb') as file:
        head = file.read(64)
    if not head:
        raise InputError(f'{path} is empty: writing or downloading it was interrupted')
    for beginning, what in FOREIGN_FILES:
        if re.match(beginning, head):
            raise InputError(f'{path} {what}')


def _damaged_record(path: str) -> str | None:
    """Name of the first part whose checksum is wrong; torch does not compare them."""
    if not zipfile.is_zipfile(path):
        return None  # written before torch 1.6, or safetensors
    with zipfile.ZipFile(path) as archive:
        return archive.testzip()


def _reason(error: Exception) -> str:
    """Torch's reason in one line, without its advice to run whatever the file holds."""
    text = str(error)
    foreign = re.search(r'GLOBAL (\S+) was not an allowed', text)
    if foreign:
        return (
            f'it holds an object of {foreign[1]}, which could run code and is not read; '
            "save the model's state_dict() alone"
        )
    unpickler = re.search(r'WeightsUnpickler error:\s*([^\n]+)', text)
    return unpickler[1] if unpickler else re.split(r'\. |\n', text or type(error).__name__)[0]


def weights_of(content: dict, path: str) -> dict[str, Tensor]:
    """The state dict in a checkpoint, without the ``module.`` before each name that DistributedDataParallel adds.

    Args:
        content: what :func:`read_checkpoint` returned: a checkpoint with ``state_dict``, or a plain state dict.
        path: the file, for messages.

    Raises:
        InputError: if there are no tensors, or some that are not finite.
    """
    state = content.get('state_dict', content)
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f'{path} holds no weights: found {", ".join(map(str, list(content)[:5])) or "nothing"}')
    if all(name.startswith('module.') for name in state):
        state = {name.removeprefix('module.'): value for name, value in state.items()}
    broken = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise InputError(
            f'{path} holds weights that are NaN or infinite in {len(broken)} of {len(state)} tensors '
            f'(first: {", ".join(broken[:3])}): its training had failed; take an earlier checkpoint'
        )
    return state


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
    retyped = [
        f'{name} ({state[name].dtype} in the file, {own[name].dtype} in the model)'
        for name in own
        if name in state and own[name].is_floating_point() != state[name].is_floating_point()
    ]
    reshaped = [
        f'{name} ({tuple(state[name].shape)} in the file, {tuple(own[name].shape)} in the model)'
        for name in own
        if name in state and own[name].shape != state[name].shape
    ]
    return '; '.join(
        f'{len(names)} {what} (first: {", ".join(names[:3])})'
        for what, names in (
            ('missing', missing),
            ('unexpected', unexpected),
            ('of another shape', reshaped),
            ('of another type', retyped),
        )
        if names
    )


def load_weights(detector: nn.Module, path: str, classes: Sequence[str] | None = None) -> None:
    """Read a checkpoint and load all of its weights, see :func:`load_content`.

    Raises:
        FileNotFoundError: if there is no such file.
        InputError: if it is damaged, or for the reasons of :func:`load_content`.
    """
    load_content(detector, read_checkpoint(path), path, classes)


def load_content(detector: nn.Module, content: dict, path: str, classes: Sequence[str] | None = None) -> None:
    """Load all weights of a checkpoint of Lightning, of MMEngine's Runner, or a plain state dict.

    Weights of half precision become the detector's type. Where the file records its classes, the rows of the class
    layers are brought into the order of ``classes``.

    Args:
        detector: what the weights are of.
        content: what :func:`read_checkpoint` returned.
        path: the file, for messages.
        classes: names of the classes that the detector shall give, in the order of its labels; None leaves the rows
            as they are in the file.

    Raises:
        InputError: if the weights are not finite, of another model, of other classes, or in another layout.
    """
    state, record = weights_of(content, path), TrainingRecord.of_checkpoint(content)
    require_current(state, path)
    if record.failed_step is not None:
        print_log(
            f'{path} was kept for inspection: it holds the weights before step {record.failed_step}, in which a loss '
            'or gradient was not finite',
            logger='current',
            level=logging.WARNING,
        )
    state = _in_order(state, record.classes, classes, path)
    problem = mismatch(state, detector.state_dict())
    if problem:
        raise InputError(
            f'{path} is of another model: {problem}. Test it with the config it was trained with; to train another '
            f'model from what fits of these weights, set load_from={path}'
        )
    types = {value.dtype for value in state.values() if value.is_floating_point()} - {torch.float32}
    detector.load_state_dict(state)
    print_log(
        f'weights of {path} loaded'
        + (f', converted from {", ".join(sorted(str(kind).removeprefix("torch.") for kind in types))}' * bool(types)),
        logger='current',
    )


def _in_order(
    state: dict[str, Tensor], recorded: tuple[str, ...] | None, classes: Sequence[str] | None, path: str
) -> dict[str, Tensor]:
    """The state dict with its class rows as ``classes`` has them, announced where that is not their own order."""
    if classes is None or recorded == tuple(classes):
        return state
    if recorded is None:
        print_log(
            f'{path} does not record its classes, so their order cannot be checked; it is taken to be '
            f'{", ".join(classes)}',
            logger='current',
            level=logging.WARNING,
        )
        return state
    state = order_classes(state, recorded, classes, path)
    print_log(
        f'classes of {path} ({", ".join(recorded)}) brought into the order of the dataset: {", ".join(classes)}',
        logger='current',
    )
    return state


def publish_checkpoint(source: str, target: str) -> None:
    """Keep the weights and what they belong to; leave out optimizer and loop state.

    Raises:
        FileExistsError: if ``target`` exists.
        InputError: if ``source`` is no checkpoint of a run, or its weights are not finite.
    """
    content = read_checkpoint(source)
    if Path(target).exists():
        raise FileExistsError(f'{target} exists')
    lacking = [key for key in ('state_dict', 'meta') if key not in content]
    if lacking:
        raise InputError(f'{source} is no checkpoint of a run: it has no {" and no ".join(lacking)}')
    weights_of(content, source)
    with atomic_write(target) as file:
        torch.save({key: content[key] for key in ('state_dict', 'meta')}, file)
