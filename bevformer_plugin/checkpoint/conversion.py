"""Whole checkpoint files from the published layout to ours and back."""

from pathlib import Path

import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from torch import Tensor

import bevformer_plugin
from bevformer_plugin.datasets.infos import atomic_write

from .files import mismatch, read_checkpoint
from .layout import is_published, to_ours, to_published


def expected_state(cfg: Config) -> dict[str, Tensor]:
    """State dict of a config's detector on the meta device: names and shapes, no memory."""
    model = cfg.model.copy()
    with torch.device('meta'):
        return MODELS.build(model).state_dict()


def _float32(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Half precision to single, as models trained in float16 are stored."""
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}


def convert_checkpoint(source: str, target: str, cfg: Config, published: bool = False) -> int:
    """Write the weights of ``source`` to ``target`` in the other layout; nothing may be missing or left over.

    Args:
        source: checkpoint of mmcv, MMEngine or Lightning, or a plain state dict.
        target: file to write; holds ``state_dict`` and ``meta``.
        cfg: config of the model the weights are of.
        published: convert ours to the published layout, not the published to ours.

    Returns:
        The number of tensors.

    Raises:
        FileExistsError: if ``target`` exists.
        ValueError: if the file is in the wanted layout already, or its weights are of another model.
    """
    if Path(target).exists():
        raise FileExistsError(f'{target} exists')
    content = read_checkpoint(source)
    state = content.get('state_dict', content)
    if is_published(state) == published:
        layout, other = ('published layout', 'without') if published else ("plugin's layout", 'with')
        raise ValueError(
            f'{source} is in the {layout} already; converting it again would spoil its boxes. '
            f'To go the other way, run {other} --to-published'
        )
    ours = state if published else to_ours(_float32(state))
    problem = mismatch(ours, expected_state(cfg))
    if problem:
        raise ValueError(f'{source} is not of the model of {cfg.filename}: {problem}')
    meta = {
        'converted_from': Path(source).name,
        'layout': 'published' if published else 'bevformer_plugin',
        'bevformer_plugin': bevformer_plugin.__version__,
        'config': cfg.pretty_text,
    }
    with atomic_write(target) as file:
        torch.save({'state_dict': to_published(ours) if published else ours, 'meta': meta}, file)
    return len(ours)
