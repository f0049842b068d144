"""Weights and inputs of tests/data/reference, under our names and in our box convention."""
import importlib.util
import json
import pathlib
import re
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

REFERENCE = pathlib.Path(__file__).resolve().parents[1] / 'data' / 'reference'

# Published key -> ours, first match wins for each line in turn; whatever no line names keeps its name.
RENAMES = [
    (r'^pts_bbox_head\.code_weights$', 'pts_bbox_head.criterion.code_weights'),
    (r'can_bus_mlp\.norm\.', 'can_bus_mlp.4.'),
    (r'ffns\.0\.', 'ffn.'),
    (r'(decoder\.layers\.\d+)\.attentions\.0\.attn\.', r'\1.self_attention.'),
    (r'(decoder\.layers\.\d+)\.attentions\.1\.output_proj\.', r'\1.output_proj.'),
    (r'(decoder\.layers\.\d+)\.attentions\.1\.', r'\1.cross_attention.'),
    (r'(encoder\.layers\.\d+)\.attentions\.0\.output_proj\.', r'\1.temporal_self_attention.output_proj.'),
    (r'(encoder\.layers\.\d+)\.attentions\.0\.', r'\1.temporal_self_attention.attention.'),
    (r'(encoder\.layers\.\d+)\.attentions\.1\.', r'\1.spatial_cross_attention.'),
]
BOX_LAYER = re.compile(r'reg_branches\.\d+\.4\.(weight|bias)$')


def load_reference_module(name: str) -> ModuleType:
    """``fill`` or ``rig`` of the reference folder."""
    spec = importlib.util.spec_from_file_location(name, REFERENCE / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def our_name(key: str) -> str:
    """Our name of a published parameter or buffer."""
    for pattern, replacement in RENAMES:
        key = re.sub(pattern, replacement, key)
    return key


def boxes_to_our_rows(boxes: Tensor, dim: int) -> Tensor:
    """Rows (cx, cy, log w, log l, cz, log h, sin, cos, vx, vy) of the old box convention to ours along ``dim``."""
    rows = boxes.movedim(dim, 0)
    ours = torch.stack([rows[0], rows[1], rows[3], rows[2], rows[4], rows[5], -rows[7], -rows[6], rows[8], rows[9]])
    return ours.movedim(0, dim)


def published_state_dict(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """The filled published weights of a manifest, as our state dict."""
    fill = load_reference_module('fill').fill
    state = {}
    for key, shape in shapes.items():
        if key.endswith('code_weights'):
            value = torch.tensor([1.0] * 8 + [0.2] * 2)
        else:
            value = torch.from_numpy(np.asarray(fill(key, tuple(shape))))
        state[our_name(key)] = boxes_to_our_rows(value, 0) if BOX_LAYER.search(key) else value
    return state


def manifest(name: str) -> dict:
    """Keys and shapes of a published model, or of ``modules``."""
    return json.loads((REFERENCE / f'{name}.state_dict.json').read_text())
