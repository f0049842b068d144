"""The published BEVFormer's state dict and ours: names, and the rows of the box regression.

A name differs where our module is another one, never in the tensor. A box layer differs in its rows: the published
heads regress boxes of mmdetection3d before 1.0, (cx, cy, log w, log l, cz, log h, sin, cos, vx, vy) with a yaw of
``-yaw - pi / 2`` of today's.
"""

import re

from torch import Tensor

# (published, ours) beginnings or parts of names, where * is a layer's number; the first that fits a name applies.
NAMES = [
    ('pts_bbox_head.code_weights', 'pts_bbox_head.criterion.code_weights'),
    ('can_bus_mlp.norm.', 'can_bus_mlp.4.'),
    ('encoder.layers.*.ffns.0.', 'encoder.layers.*.ffn.'),
    ('decoder.layers.*.ffns.0.', 'decoder.layers.*.ffn.'),
    ('decoder.layers.*.attentions.0.attn.', 'decoder.layers.*.self_attention.'),
    ('decoder.layers.*.attentions.1.output_proj.', 'decoder.layers.*.output_proj.'),
    ('decoder.layers.*.attentions.1.', 'decoder.layers.*.cross_attention.'),
    ('encoder.layers.*.attentions.0.output_proj.', 'encoder.layers.*.temporal_self_attention.output_proj.'),
    ('encoder.layers.*.attentions.0.', 'encoder.layers.*.temporal_self_attention.attention.'),
    ('encoder.layers.*.attentions.1.', 'encoder.layers.*.spatial_cross_attention.'),
]
# What the published weights were trained on: order of classes and cameras, and the rule of their CAN-bus messages.
PUBLISHED_RECORD = {
    'classes': [
        'car',
        'truck',
        'construction_vehicle',
        'bus',
        'trailer',
        'barrier',
        'motorcycle',
        'bicycle',
        'pedestrian',
        'traffic_cone',
    ],
    'cameras': ['CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_FRONT_LEFT', 'CAM_BACK', 'CAM_BACK_LEFT', 'CAM_BACK_RIGHT'],
    'can_bus': 'official_v1',
    'frame': 'lidar',
}
BOX_LAYER = re.compile(r'reg_branches\.\d+\.4\.(weight|bias)$')


def _pattern(name: str) -> re.Pattern:
    return re.compile(re.escape(name).replace(r'\*', r'(\d+)'))


def _replacement(name: str) -> str:
    return name.replace('*', r'\1')


TO_OURS = [(_pattern(published), _replacement(ours)) for published, ours in NAMES]
TO_PUBLISHED = [(_pattern(ours), _replacement(published)) for published, ours in NAMES]


def _rename(name: str, rules: list[tuple[re.Pattern, str]]) -> str:
    for pattern, replacement in rules:
        renamed, count = pattern.subn(replacement, name)
        if count:
            return renamed
    return name


def our_name(name: str) -> str:
    """Our name of a parameter or buffer of the published implementation."""
    return _rename(name, TO_OURS)


def published_name(name: str) -> str:
    """The published implementation's name of one of our parameters or buffers."""
    return _rename(name, TO_PUBLISHED)


def swap_box_convention(rows: Tensor) -> Tensor:
    """Turn raw box rows (10, ...) of one convention into the other's; twice is the identity.

    Widths and lengths change places; the new (sin, cos) is the old -(cos, sin), as yaw = -yaw_old - pi / 2. Exact for
    the weights of a layer as well, since the refinement between decoder layers uses rows 0, 1 and 4 only.
    """
    swapped = rows[[0, 1, 3, 2, 4, 5, 7, 6, 8, 9]]
    swapped[6:8] *= -1
    return swapped


def _convert(state: dict[str, Tensor], rules: list[tuple[re.Pattern, str]]) -> dict[str, Tensor]:
    return {
        _rename(name, rules): swap_box_convention(value) if BOX_LAYER.search(name) else value
        for name, value in state.items()
    }


def to_ours(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A published state dict under our names and in today's box convention."""
    return _convert(state, TO_OURS)


def to_published(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of :func:`to_ours`."""
    return _convert(state, TO_PUBLISHED)


def is_published(state: dict[str, Tensor]) -> bool:
    """Whether the names are those of the published implementation, not ours."""
    return any(our_name(name) != name for name in state)
