"""Settings of a model that change what it computes without changing the shape of any tensor.

Checkpoints fit any values of these settings, so those of the training have to be compared with the config's.
"""

import inspect
import re
from contextlib import suppress
from dataclasses import asdict

from mmdet3d.registry import MODELS, TASK_UTILS, TRANSFORMS
from mmengine.registry import Registry

from bevformer_plugin.geometry import BEVGrid
from bevformer_plugin.models.bev.ego_alignment import EgoAlignment
from bevformer_plugin.models.heads.box_coder import post_center_range

# Names of settings that only matter in training, or that choose how something is computed and not what.
TRAINING_ONLY = re.compile(
    r'(^|\.)(grid_mask|activation_checkpointing|criterion|loss_\w+|code_weights'
    r'|dropout|bev_embedding_std|positional_encoding_init|init_cfg|pretrained|frozen_stages|norm_eval|with_cp|requires_grad|non_blocking|train_cfg)'
    r'(\.|$)'
)
# Names of settings with which weights see other numbers than they were trained on, so a difference is an error.
CERTAINLY_WRONG = re.compile(
    r'(^|\.)(data_preprocessor\.(mean|std|bgr_to_rgb|rgb_to_bgr)|point_cloud_range(\.\d+)?'
    r'|img_backbone\.(style|strides|dilations)|num_heads|num_points_in_pillar|heads\.\w+\.protocol)$'
)


def model_settings(model: dict) -> dict[str, object]:
    """Collect the settings of a config's ``model`` for inference by dotted name, including defaults."""
    settings = {**model, 'heads': _heads_for_inference(model.get('heads') or {})}
    with suppress(ValueError):  # fields of another version of this package are compared as they are written
        settings['ego_motion'] = asdict(EgoAlignment.from_config(model.get('ego_motion')))
    flat = _flat(settings, '', (MODELS, TASK_UTILS))
    for name in list(flat):
        if name.endswith('.box_coder.type'):  # its range follows the grid's, where no config sets it
            kept_range = name.removesuffix('type') + 'post_center_range'
            rows, columns = model['bev_grid']
            grid = BEVGrid(rows, columns, tuple(model['point_cloud_range']))
            flat[kept_range] = flat.get(kept_range) or post_center_range(grid)
    return {name: value for name, value in flat.items() if not TRAINING_ONLY.search(name)}


def _heads_for_inference(heads: dict[str, dict | None]) -> dict[str, dict]:
    """The heads that predict something; the others are used in training alone."""
    return {name: head for name, head in heads.items() if head and getattr(MODELS.get(head['type']), 'predicts', True)}


def pipeline_settings(pipeline: list[dict]) -> dict[str, object]:
    """Collect the settings of a dataset's transforms by position and name, including defaults."""
    return _flat(dict(enumerate(pipeline)), '', (TRANSFORMS,))


def differences(recorded: dict[str, object], current: dict[str, object]) -> dict[str, tuple[object, object]]:
    """Collect the settings that differ, by name, as pairs of recorded and current value, None for a missing one."""
    return {
        name: (recorded.get(name), current.get(name))
        for name in sorted({*recorded, *current})
        if recorded.get(name) != current.get(name)
    }


def _flat(value: object, name: str, registries: tuple[Registry, ...]) -> dict[str, object]:
    """Collect the leaves of nested configs by dotted name; a sequence of plain values is one leaf, as a tuple."""
    if isinstance(value, dict):
        items = {**_defaults(value.get('type'), registries), **value}.items()
    elif isinstance(value, list | tuple) and any(isinstance(element, dict) for element in value):
        items = enumerate(value)
    else:
        return {name: _plain(value)}
    leaves = {}
    for key, element in items:
        leaves.update(_flat(element, f'{name}.{key}' if name else str(key), registries))
    return leaves


def _plain(value: object) -> object:
    """Turn sequences into tuples, since a config's text may write either."""
    return tuple(_plain(element) for element in value) if isinstance(value, list | tuple) else value


def _defaults(kind: object, registries: tuple[Registry, ...]) -> dict[str, object]:
    """Collect the default arguments of a registered class; an unknown type has none."""
    if not isinstance(kind, str):
        return {}
    registered = next((cls for cls in (registry.get(kind) for registry in registries) if cls), None)
    if registered is None:
        return {}
    parameters = inspect.signature(registered).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.default is not parameter.empty}
