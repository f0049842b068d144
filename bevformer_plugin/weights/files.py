"""Checkpoint files: they are read without running code from them, and loaded completely or not at all."""

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

_array_function, _number_function = np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0]
# Pickles of NumPy name the function that restores an array or number, which NumPy 1 and 2 keep in different modules.
NUMPY_FUNCTIONS = [
    (function, f'numpy.{core}.multiarray.{name}')
    for function, name in ((_array_function, '_reconstruct'), (_number_function, 'scalar'))
    for core in ('core', '_core')
]
# MMEngine's Runner puts objects of these types into its checkpoints, beside tensors.
SAFE_GLOBALS = [
    HistoryBuffer,
    *NUMPY_FUNCTIONS,
    np.ndarray,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ('float64', 'float32', 'int64', 'int32', 'bool')),
    getattr,
]

# Beginnings of files that are often found in the place of a checkpoint, with the remedy.
FOREIGN_FILES = [
    (rb'\s*<', 'is a web page: its address asked for a login or is gone, download the file itself'),
    (rb'version https://git-lfs', 'is a Git LFS pointer, the file itself was not fetched: run git lfs pull'),
    (rb'\x1f\x8b', 'is compressed with gzip: unpack it with gunzip'),
    # Protocol buffers of a model begin with its version of the format, then the name of the program that wrote it.
    (rb'\x08[\x01-\x7f]\x12', 'is an ONNX file, not a checkpoint: tools/test.py and OnnxPredictor run those'),
    (rb'\s*[{\[]\s*["\]}\[{]', 'is JSON, not a checkpoint'),
]


def read_checkpoint(path: str) -> dict:
    """Load a checkpoint on the CPU without running code from it, and check the checksums of its tensors.

    Raises:
        FileNotFoundError: if the file does not exist.
        IsADirectoryError: if ``path`` is a folder.
        InputError: if the file is damaged or not a checkpoint.
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
    """Refuse an empty file, and the kinds of files in :data:`FOREIGN_FILES`."""
    with open(path, 'rb') as file:
        head = file.read(64)
    if not head:
        raise InputError(f'{path} is empty: writing or downloading it was interrupted')
    for beginning, what in FOREIGN_FILES:
        if re.match(beginning, head):
            raise InputError(f'{path} {what}')


def _damaged_record(path: str) -> str | None:
    """Name the first part of the file whose checksum is wrong, since torch does not compare checksums."""
    if not zipfile.is_zipfile(path):
        return None  # files from before torch 1.6 have no checksums
    with zipfile.ZipFile(path) as archive:
        return archive.testzip()


def _reason(error: Exception) -> str:
    """Extract torch's reason in one line, without its advice to run code from the file."""
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
    """Take the state dict from a checkpoint, and remove the ``module.`` that DistributedDataParallel adds to names.

    Args:
        content: what :func:`read_checkpoint` returned: a checkpoint with ``state_dict``, or a plain state dict.
        path: the file, for messages.

    Raises:
        InputError: if the checkpoint has no tensors, or some that are not finite.
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


def load_from_local(filename: str, map_location: str | None) -> dict:
    """Load a file for MMEngine, whose own loader cannot read its Runner's checkpoints since torch 2.6.

    Raises:
        FileNotFoundError: if the file does not exist.
    """
    if not Path(filename).is_file():
        raise FileNotFoundError(f'checkpoint {filename} does not exist')
    with torch.serialization.safe_globals(SAFE_GLOBALS):
        return torch.load(filename, map_location=map_location, weights_only=True)


CheckpointLoader.register_scheme('', load_from_local, force=True)


def training_only(detector: nn.Module) -> tuple[str, ...]:
    """List the beginnings of the names of tensors that no prediction needs.

    They are those of heads that predict nothing, but for one that proposes the objects that another starts from.
    """
    heads, proposing = getattr(detector, 'heads', {}), getattr(detector, 'proposing_head', None)
    needed = () if proposing is None else (proposing[0],)
    silent = [name for name, head in heads.items() if not getattr(head, 'predicts', ('unknown',))]
    return tuple(f'heads.{name}.' for name in silent if name not in needed)


def without_absent(own: dict[str, Tensor], state: dict[str, Tensor], beginnings: Sequence[str]) -> dict[str, Tensor]:
    """Leave out of a detector's state dict the parts of which ``state`` has nothing at all.

    Args:
        own: state dict of the detector.
        state: that is to be loaded.
        beginnings: of the names of the parts.
    """
    absent = tuple(part for part in beginnings if not any(name.startswith(part) for name in state))
    return {name: value for name, value in own.items() if not name.startswith(absent)} if absent else own


def mismatch(state: dict[str, Tensor], own: dict[str, Tensor]) -> str:
    """Describe how a state dict differs from ``own``, that of the model to load it into; empty if it fits."""
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
        FileNotFoundError: if the file does not exist.
        InputError: if the file is damaged, or for the reasons of :func:`load_content`.
    """
    load_content(detector, read_checkpoint(path), path, classes)


def load_content(detector: nn.Module, content: dict, path: str, classes: Sequence[str] | None = None) -> None:
    """Load all weights of a checkpoint of Lightning, of MMEngine's Runner, or of a plain state dict.

    A head that predicts nothing, as it is for training alone, may be absent in the file. Weights of heads that the
    detector lacks are left out, which the log says. Weights of half precision are cast to the detector's type. If the
    file records its classes, the rows of the class layers are brought into the order of ``classes``.

    Args:
        detector: the detector to load the weights into.
        content: what :func:`read_checkpoint` returned.
        path: the file, for messages.
        classes: names of the detector's classes in the order of its labels; None keeps the order of the rows in the
            file.

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
    state = _in_order(_without_foreign_heads(state, detector, path), record.classes, classes, path)
    own = detector.state_dict()
    needed = without_absent(own, state, training_only(detector))
    problem = mismatch(state, needed)
    if problem:
        raise InputError(
            f'{path} is of another model: {problem}. Test it with the config it was trained with; to train another '
            f'model from what fits of these weights, set load_from={path}'
        )
    types = {value.dtype for value in state.values() if value.is_floating_point()} - {torch.float32}
    detector.load_state_dict(state, strict=False)  # what may be missing has been checked
    absent = sorted({'.'.join(name.split('.')[:2]) for name in own.keys() - needed.keys()})
    if absent:
        print_log(
            f'{path} has no weights of {", ".join(absent)}, which predicts nothing and is needed in training alone: '
            'its weights are the initial ones',
            logger='current',
        )
    print_log(
        f'weights of {path} loaded'
        + (f', converted from {", ".join(sorted(str(kind).removeprefix("torch.") for kind in types))}' * bool(types)),
        logger='current',
    )


def _without_foreign_heads(state: dict[str, Tensor], detector: nn.Module, path: str) -> dict[str, Tensor]:
    """Leave out the weights of heads that a detector does not have, as one whose config sets a head to None."""
    heads = getattr(detector, 'heads', None)
    if not isinstance(heads, nn.ModuleDict):
        return state
    head_of = {name: name.split('.')[1] for name in state if name.startswith('heads.')}
    foreign = sorted(set(head_of.values()) - set(heads.keys()))
    if foreign:
        print_log(
            f'{path} has weights of heads.{", heads.".join(foreign)}, which the config lacks: they are left out',
            logger='current',
        )
    return {name: value for name, value in state.items() if head_of.get(name) not in foreign}


def _in_order(
    state: dict[str, Tensor], recorded: tuple[str, ...] | None, classes: Sequence[str] | None, path: str
) -> dict[str, Tensor]:
    """Bring the class rows of a state dict into the order of ``classes``, and log it if they had another one."""
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


def refuse_target(target: str) -> None:
    """Refuse to write a checkpoint over an existing file or into a missing folder.

    Raises:
        FileExistsError: if ``target`` exists.
        FileNotFoundError: if the folder of ``target`` does not exist.
    """
    if Path(target).exists():
        raise FileExistsError(f'{target} exists')
    if not Path(target).parent.is_dir():
        raise FileNotFoundError(f'no folder {Path(target).parent} for {Path(target).name}: make it first')


def publish_checkpoint(source: str, target: str) -> None:
    """Write a checkpoint of a run again with its weights and metadata, but without the state of optimizer and loops.

    Raises:
        FileExistsError: if ``target`` exists.
        FileNotFoundError: if ``source`` or the folder of ``target`` does not exist.
        InputError: if ``source`` is not a checkpoint of a run, its weights are not finite, or it was kept for the
            inspection of a failed step.
    """
    refuse_target(target)
    content = read_checkpoint(source)
    lacking = [key for key in ('state_dict', 'meta') if key not in content]
    if lacking:
        raise InputError(f'{source} is no checkpoint of a run: it has no {" and no ".join(lacking)}')
    weights_of(content, source)
    if TrainingRecord.of_checkpoint(content).failed_step is not None:
        raise InputError(
            f'{source} was kept for inspection, from before a step whose loss or gradient was not finite: publish '
            'last.ckpt or a best checkpoint'
        )
    with atomic_write(target) as file:
        torch.save({key: content[key] for key in ('state_dict', 'meta')}, file)
