"""Conversion of whole checkpoint files from the published layout to ours and back."""

from pathlib import Path

import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.logging import print_log
from torch import Tensor, nn

import bevformer_plugin
from bevformer_plugin.atomic_write import atomic_write
from bevformer_plugin.configuration import building
from bevformer_plugin.errors import InputError

from .files import mismatch, read_checkpoint, refuse_target, training_only, weights_of, without_absent
from .layout import (
    PUBLISHED_RECORD,
    PUBLISHED_RECORD_V2,
    PUBLISHED_TRAINING_HEAD,
    TRAINING_HEAD,
    Layout,
    layout_of,
    to_ours,
    to_published,
)
from .named_rows import CAMERA_ROWS, CLASS_ROWS, check_rows
from .record import recorded_meta


def expected_state(cfg: Config) -> dict[str, Tensor]:
    """Build the state dict of a config's detector on the meta device, with names and shapes but without memory.

    Raises:
        InputError: if the detector cannot be built from the config.
    """
    return _detector(cfg).state_dict()


def _detector(cfg: Config) -> nn.Module:
    model = cfg.model.copy()
    with building('model'), torch.device('meta'):
        return MODELS.build(model)


def _float32(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Cast weights to float32, as models trained in float16 are stored in half precision."""
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}


def convert_checkpoint(source: str, target: str, cfg: Config, published: bool = False) -> int:
    """Write the weights of ``source`` to ``target`` in our layout or the published one, all of them and no others.

    Weights of a head for training alone are left out, with a line in the log, where the config's model has no such
    head, and may be absent where it has one.

    The target records the classes, the cameras and the CAN-bus rule of the training. They are taken from ``source`` if
    it records them, and are else those of all weights of the published code.

    Args:
        source: checkpoint of mmcv, MMEngine or Lightning, or a plain state dict.
        target: file to write; it will hold ``state_dict`` and ``meta``.
        cfg: config of the model that the weights belong to.
        published: convert to the published layout, not to ours.

    Returns:
        The number of converted tensors.

    Raises:
        FileExistsError: if ``target`` exists.
        FileNotFoundError: if ``source`` or the folder of ``target`` does not exist.
        InputError: if the file is in the wanted layout already, its weights are not finite or of another model, or
            it records other numbers of classes or cameras than the weights have.
    """
    refuse_target(target)
    content = read_checkpoint(source)
    state = weights_of(content, source)
    layout = layout_of(state)
    if layout is (Layout.PUBLISHED if published else Layout.CURRENT):
        other = 'without' if published else 'with'
        raise InputError(f'{source} is in the {layout.value} already; to go the other way, run {other} --to-published')
    detector = _detector(cfg)
    own = detector.state_dict()
    ours = _without_training_head(to_ours(_float32(state)), own, source)
    problem = mismatch(ours, without_absent(own, ours, training_only(detector)))
    if problem:
        raise InputError(f'{source} is not of the model of {cfg.filename}: {problem}')
    meta = recorded_meta(content)
    record = meta.get('dataset_meta') or (_published_record(meta, ours) if layout is Layout.PUBLISHED else {})
    if not isinstance(record, dict):
        raise InputError(f'{source} records no readable dataset_meta: it is {record!r}')
    for rows, what in ((CLASS_ROWS, 'classes'), (CAMERA_ROWS, 'cameras')):
        if what in record:
            check_rows(ours, rows, record[what], what, source)
    if layout is Layout.PUBLISHED and 'dataset_meta' not in meta and _sees_motion(ours):
        # The record names the published ego motion whatever the config sets, since these weights are tested wrongly
        # with any other.
        cfg = Config({**cfg.to_dict(), 'model': {**cfg.model, 'ego_motion': _published_motion(cfg.model)}})
    meta = {
        'converted_from': Path(source).name,
        'dataset_meta': record,
        'layout': 'published' if published else 'bevformer_plugin',
        'bevformer_plugin': bevformer_plugin.__version__,
        'config': cfg.pretty_text,
    }
    with atomic_write(target) as file:
        torch.save({'state_dict': to_published(ours) if published else ours, 'meta': meta}, file)
    return len(ours)


def _without_training_head(ours: dict[str, Tensor], own: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Leave out weights of the published head for training where the config has no such head, and log it."""
    unknown = {name for name in ours if name.startswith(TRAINING_HEAD)} - own.keys()
    if not unknown:
        return ours
    print_log(
        f'{source}: {len(unknown)} tensors of the perspective head ({PUBLISHED_TRAINING_HEAD}*) left out: it is for '
        'training alone, and the model of the config has no such head',
        logger='current',
    )
    return {name: value for name, value in ours.items() if name not in unknown}


def _sees_motion(ours: dict[str, Tensor]) -> bool:
    """Tell published weights of BEVFormer, in our names, from those of BEVFormerV2, which knows no motion."""
    return any(name.startswith('bev_encoder.can_bus_mlp.') for name in ours)


def _published_record(meta: dict, ours: dict[str, Tensor]) -> dict:
    """Describe the data of weights of the published code, whose trainings record the classes as ``CLASSES``."""
    record = PUBLISHED_RECORD if _sees_motion(ours) else PUBLISHED_RECORD_V2
    return {**record, 'classes': list(meta.get('CLASSES') or record['classes'])}


def _published_motion(model: dict) -> dict:
    """Return the ``ego_motion`` of the published code, with the other settings that a config has beside the preset."""
    return {'preset': 'official_v1', **(model.get('ego_motion') or {})}
