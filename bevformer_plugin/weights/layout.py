"""State dicts of the published BEVFormer, of version 0.1 of this package, and today's: names, and the box regression.

A name differs where our module sits in another place or is another one, never in the tensor. A box layer of the
published models differs in its rows: they regress boxes of mmdetection3d before 1.0, (cx, cy, log w, log l, cz, log h,
sin, cos, vx, vy) with a yaw of ``-yaw - pi / 2`` of today's. Version 0.1 had today's rows, and the published places.
"""

import re
from enum import Enum

from torch import Tensor

from bevformer_plugin.errors import InputError

# Where modules sit: beginnings of (published, our) names; the first that fits applies.
PLACES = [
    ('pts_bbox_head.positional_encoding.', 'bev_encoder.positional_encoding.'),
    ('pts_bbox_head.bev_embedding.', 'bev_encoder.bev_embedding.'),
    ('pts_bbox_head.query_embedding.', 'heads.detection.queries.query_embedding.'),
    ('pts_bbox_head.transformer.reference_points.', 'heads.detection.queries.reference_points.'),
    ('pts_bbox_head.transformer.decoder.', 'heads.detection.decoder.'),
    ('pts_bbox_head.transformer.fusion.', 'bev_fusion.'),
    ('pts_bbox_head.transformer.', 'bev_encoder.'),
    ('pts_bbox_head.code_weights', 'heads.detection.criterion.code_weights'),
    ('pts_bbox_head.', 'heads.detection.'),
    ('fcos3d_bbox_head.fcos2d_head.', 'heads.perspective.box2d.'),
    ('fcos3d_bbox_head.fcos3d_head.', 'heads.perspective.box3d.'),
    ('fcos3d_bbox_head.attr_logits.', 'heads.perspective.attr_logits.'),
    ('fcos3d_bbox_head.speed.', 'heads.perspective.speed.'),
]
# Beginnings that version 0.1 alone had, for parts that the published models do not have.
PLACES_OF_0_1 = [
    ('pts_bbox_head.proposals.', 'heads.detection.queries.'),
    ('perspective_supervision.', 'heads.perspective.'),
]
# What modules are called inside: parts of (published, our) names, where * is a layer's number; the first that fits
# applies.
PARTS = [
    ('can_bus_mlp.norm.', 'can_bus_mlp.4.'),
    ('fusion.layer_norm.', 'fusion.projection.'),
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
# What those of BEVFormerV2 were trained on: classes in the order of the alphabet, and no CAN bus.
PUBLISHED_RECORD_V2 = {
    'classes': sorted(PUBLISHED_RECORD['classes']),
    'cameras': PUBLISHED_RECORD['cameras'],
    'frame': PUBLISHED_RECORD['frame'],
}
# The beginning of the names of the head that the published BEVFormerV2 is trained with and does not need for tests.
PUBLISHED_TRAINING_HEAD = 'fcos3d_bbox_head.'
TRAINING_HEAD = 'heads.perspective.'  # the same in our names
BOX_LAYER = re.compile(r'reg_branches\.\d+\.4\.(weight|bias)$')


def _pattern(name: str) -> re.Pattern:
    return re.compile(re.escape(name).replace(r'\*', r'(\d+)'))


def _replacement(name: str) -> str:
    return name.replace('*', r'\1')


PARTS_TO_OURS = [(_pattern(published), _replacement(ours)) for published, ours in PARTS]
PARTS_TO_PUBLISHED = [(_pattern(ours), _replacement(published)) for published, ours in PARTS]


class Layout(Enum):
    """Whose names a state dict has, with what people call the layout as value."""

    PUBLISHED = 'published layout'
    VERSION_0_1 = 'layout of version 0.1'
    CURRENT = "plugin's layout"


def layout_of(state: dict[str, Tensor]) -> Layout:
    """Tell a state dict by its names; one of another model, such as a bare backbone, has none that is not current."""
    if any(_renamed(name, PARTS_TO_OURS) != name for name in state) or 'pts_bbox_head.code_weights' in state:
        return Layout.PUBLISHED
    if any(_moved(name, [*PLACES_OF_0_1, *PLACES]) != name for name in state):
        return Layout.VERSION_0_1
    return Layout.CURRENT


def require_current(state: dict[str, Tensor], path: str) -> None:
    """Refuse weights that have to be converted first.

    Raises:
        InputError: naming the file, the layout it has, and the command.
    """
    layout = layout_of(state)
    if layout is not Layout.CURRENT:
        raise InputError(f'{path} is in the {layout.value}: convert it with tools/convert_checkpoint.py first')


def _renamed(name: str, rules: list[tuple[re.Pattern, str]]) -> str:
    for pattern, replacement in rules:
        renamed, count = pattern.subn(replacement, name)
        if count:
            return renamed
    return name


def _moved(name: str, places: list[tuple[str, str]]) -> str:
    for beginning, replacement in places:
        if name.startswith(beginning):
            return replacement + name.removeprefix(beginning)
    return name


def our_name(name: str) -> str:
    """Translate the name of a parameter or buffer of the published implementation, or of version 0.1, to ours."""
    return _moved(_renamed(name, PARTS_TO_OURS), [*PLACES_OF_0_1, *PLACES])


def published_name(name: str) -> str:
    """Translate the name of one of our parameters or buffers to the published implementation's."""
    return _renamed(_moved(name, [(ours, published) for published, ours in PLACES]), PARTS_TO_PUBLISHED)


def swap_box_convention(rows: Tensor) -> Tensor:
    """Turn raw box rows (10, ...) of one convention into the other's; twice is the identity.

    Widths and lengths change places; the new (sin, cos) is the old -(cos, sin), as yaw = -yaw_old - pi / 2. Exact for
    the weights of a layer as well, since the refinement between decoder layers uses rows 0, 1 and 4 only.
    """
    swapped = rows[[0, 1, 3, 2, 4, 5, 7, 6, 8, 9]]
    swapped[6:8] *= -1
    return swapped


def to_ours(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert a state dict of any layout to our names and today's box convention."""
    swapped = layout_of(state) is Layout.PUBLISHED
    return {
        our_name(name): swap_box_convention(value) if swapped and BOX_LAYER.search(name) else value
        for name, value in state.items()
    }


def to_published(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert our state dict to the published names and box convention; the inverse of :func:`to_ours`."""
    return {
        published_name(name): swap_box_convention(value) if BOX_LAYER.search(name) else value
        for name, value in state.items()
    }
