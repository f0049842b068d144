"""Whether a config can be built, and whether a checkpoint is of it and of the data."""

import copy
from pathlib import Path

from mmdet3d.registry import DATASETS, MODELS
from mmengine.config import Config
from torch import Tensor, nn

from bevformer_plugin.configuration import building, load_config
from bevformer_plugin.datasets.described import DescribedDataset
from bevformer_plugin.errors import InputError
from bevformer_plugin.weights import (
    TrainingRecord,
    check_checkpoint,
    initialize,
    load_content,
    mismatch,
    read_checkpoint,
    to_ours,
    weights_of,
)
from bevformer_plugin.weights.layout import Layout, layout_of

from .page import Line, note, ok, wrong


def examine_config(name: str) -> tuple[list[Line], Config | None, nn.Module | None]:
    """Read a config and build its detector.

    Returns:
        Lines of the page; the config and the detector, None where they cannot be had.
    """
    try:
        cfg = load_config(name)
        with building('model'):
            detector = MODELS.build(copy.deepcopy(cfg.model))
    except (InputError, OSError) as error:
        return [wrong('config', error)], None, None
    count = sum(parameter.numel() for parameter in detector.parameters())
    heads = ', '.join(cfg.model.get('heads') or {})
    return (
        [ok('config', f'{cfg.filename}: {cfg.model.type} of {count / 1e6:.1f} million parameters, heads: {heads}')],
        cfg,
        detector,
    )


def examine_test_data(cfg: Config, root: Path) -> tuple[list[Line], DescribedDataset | None]:
    """Build the test dataset of a config on a dataroot, which compares classes, cameras and sizes with the infos."""
    settings = copy.deepcopy((cfg.get('test_dataloader') or {}).get('dataset'))
    if not isinstance(settings, dict):
        return [wrong('test data', f'{cfg.filename} has no test_dataloader.dataset')], None
    settings['data_root'] = str(root)
    try:
        with building('test_dataloader.dataset'):
            dataset = DATASETS.build(settings)
    except (InputError, OSError) as error:
        return [wrong('test data', error)], None
    meta = dataset.metainfo
    found = f'{len(dataset)} samples, {len(meta["classes"])} classes, cameras {", ".join(meta.get("cameras") or ())}'
    size = meta.get('image_size')
    return [ok('test data', found + (f', images of {size[0]} x {size[1]}' if size else ''))], dataset


def examine_checkpoint(
    path: str, cfg: Config | None, detector: nn.Module | None, dataset: DescribedDataset | None
) -> list[Line]:
    """Examine a checkpoint, and compare it with a config's detector and with data if they are given.

    Args:
        path: file of the checkpoint.
        cfg: config, or None.
        detector: the config's detector, or None; its weights are replaced.
        dataset: the data to test on, or None.
    """
    try:
        content = read_checkpoint(path)
        state = weights_of(content, path)
    except (InputError, OSError) as error:
        return [wrong('checkpoint', error)]
    layout = layout_of(state)
    lines = [_record(content)]
    if not any(name.startswith('bev_encoder.') for name in to_ours(state)):
        return [_backbone(path, state, detector), *lines]
    if layout is not Layout.CURRENT:
        return [_earlier(path, layout, state, detector), *lines]
    lines.insert(0, ok('layout', f'{layout.value}, {len(state)} tensors, all finite'))
    if cfg is not None and detector is not None:
        lines += _fit(path, content, cfg, detector, dataset)
    return lines


def _record(content: dict) -> Line:
    """Say what a checkpoint records of its training."""
    record = TrainingRecord.of_checkpoint(content)
    known = {
        'classes': record.classes and len(record.classes),
        'cameras': record.cameras and len(record.cameras),
        'image size': record.image_size and ' x '.join(map(str, record.image_size)),
        'CAN-bus rule': record.can_bus,
        'frame': record.frame,
        'model': record.model.get('type'),
    }
    told = ', '.join(f'{what} {value}' for what, value in known.items() if value)
    lacking = ', '.join(what for what, value in known.items() if not value)
    if not told:
        return note('record', 'none of its training: that it belongs to config and data cannot be checked')
    return note('record', f'{told}; not recorded: {lacking}') if lacking else ok('record', told)


def _backbone(path: str, state: dict[str, Tensor], detector: nn.Module | None) -> Line:
    """Say that a file is of an image backbone, and whether a detector can start from it."""
    use = f'a training can start from it (load_from={path}), testing cannot use it'
    if detector is None:
        return note('layout', f'{len(state)} tensors and none of a BEV encoder, as of a bare backbone: {use}')
    try:
        initialize(detector, path)
    except (InputError, OSError) as error:
        return wrong('layout', error)
    return note('layout', f'a backbone that fits the config: {use}')


def _earlier(path: str, layout: Layout, state: dict[str, Tensor], detector: nn.Module | None) -> Line:
    """Say that a file has to be converted, and whether it is then of a detector."""
    command = f'python tools/convert_checkpoint.py {path} TARGET --config CONFIG'
    if detector is None:
        return wrong('layout', f'{layout.value}: convert it with {command}')
    problem = mismatch(to_ours(state), detector.state_dict())
    if problem:
        return wrong('layout', f'{layout.value}, and of another model than the config: {problem}')
    return wrong('layout', f'{layout.value}, of the model of the config: convert it with {command}')


def _fit(path: str, content: dict, cfg: Config, detector: nn.Module, dataset: DescribedDataset | None) -> list[Line]:
    """Load the weights into the config's detector, and compare what the file records with config and data."""
    try:
        load_content(detector, content, path, dataset.metainfo.get('classes') if dataset is not None else None)
        lines = [ok('weights', 'are of the model of the config, and loaded whole')]
        if dataset is not None:
            remarks = check_checkpoint(cfg, dataset, path, content)
            lines += [note('settings', remark) for remark in remarks] or [ok('settings', 'are those of its training')]
    except (InputError, OSError) as error:
        return [wrong('weights', error)]
    return lines
