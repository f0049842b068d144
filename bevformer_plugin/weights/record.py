"""Reading what a checkpoint records of its training: classes, cameras, data and model settings."""

import ast
from dataclasses import dataclass, field

# Trained weights depend on these entries of a dataset's metainfo; checkpoints record them under ``meta.dataset_meta``.
RECORDED_METAINFO = ('classes', 'cameras', 'image_size', 'can_bus', 'frame')


@dataclass(frozen=True)
class TrainingRecord:
    """What a checkpoint records of the training of its weights; None or empty for what it does not record.

    Attributes:
        classes: names of the classes, in the order of the rows of the class layers.
        cameras: names of the cameras, in the order of the model's inputs.
        image_size: (width, height) in pixels of the images before padding.
        can_bus: rule by which the infos chose CAN-bus messages, 'none' for infos without messages.
        frame: coordinate frame of boxes and BEV, 'lidar' or 'vehicle'.
        model: ``model`` of the training's config.
        test_pipeline: transforms of the test dataset in the training's config.
        failed_step: number of the optimizer step that failed, if the file was kept for its inspection.
    """

    classes: tuple[str, ...] | None = None
    cameras: tuple[str, ...] | None = None
    image_size: tuple[int, int] | None = None
    can_bus: str | None = None
    frame: str | None = None
    model: dict = field(default_factory=dict)
    test_pipeline: list[dict] = field(default_factory=list)
    failed_step: int | None = None

    @classmethod
    def of_checkpoint(cls, content: dict) -> 'TrainingRecord':
        """Read the record of a checkpoint of Lightning or MMEngine; that of a plain state dict is empty.

        Older checkpoints do not record cameras and image size, which are then taken from the recorded config.
        """
        meta = recorded_meta(content)
        text = meta.get('config') or meta.get('cfg')
        names = ('model', 'train_dataloader', 'test_dataloader')
        config = read_config_text(text, names) if isinstance(text, str) else {}
        trained, tested = (config.get(f'{part}_dataloader', {}).get('dataset', {}) for part in ('train', 'test'))
        metainfo = {'cameras': trained.get('cameras'), 'image_size': trained.get('image_size')}
        dataset_meta = meta.get('dataset_meta')
        if isinstance(dataset_meta, dict):
            metainfo.update(dataset_meta)
        sequences = {
            key: tuple(metainfo[key])
            for key in ('classes', 'cameras', 'image_size')
            if isinstance(metainfo.get(key), list | tuple)
        }
        return cls(
            **sequences,
            can_bus=metainfo.get('can_bus'),
            frame=metainfo.get('frame'),
            model=config.get('model', {}),
            test_pipeline=tested.get('pipeline', []),
            failed_step=content.get('global_step') if 'samples' in content else None,
        )


def recorded_meta(content: dict) -> dict:
    """Return the ``meta`` of a checkpoint; empty if it has none."""
    meta = content.get('meta')
    return meta if isinstance(meta, dict) else {}


def recorded_metainfo(metainfo: dict) -> dict:
    """Select the entries of a dataset's ``metainfo`` that checkpoints record, as types that are read without code."""
    known = {key: metainfo[key] for key in RECORDED_METAINFO if metainfo.get(key) is not None}
    return {key: value if isinstance(value, str) else list(value) for key, value in known.items()}


def read_config_text(text: str, names: tuple[str, ...]) -> dict:
    """Read variables from the text of a config (``Config.pretty_text``) without running it.

    Values of literals, containers and ``dict(...)`` can be read. A name that is missing or has any other value is left
    out of the result.
    """
    try:
        statements = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    values = {}
    for statement in statements:
        if not isinstance(statement, ast.Assign):
            continue
        for target in statement.targets:
            if isinstance(target, ast.Name) and target.id in names:
                try:
                    values[target.id] = _value(statement.value)
                except (ValueError, TypeError):
                    values.pop(target.id, None)
    return {name: value for name, value in values.items() if isinstance(value, dict)}


def _value(node: ast.expr) -> object:
    """Evaluate an expression of literals, containers and ``dict(...)``.

    Raises:
        ValueError: for any other expression.
    """
    if isinstance(node, ast.Call):
        if not (isinstance(node.func, ast.Name) and node.func.id == 'dict') or node.args:
            raise ValueError('a call of something other than dict with keywords')
        return {keyword.arg: _value(keyword.value) for keyword in node.keywords}
    if isinstance(node, ast.Dict):
        if None in node.keys:
            raise ValueError('a dict that unpacks another one')
        return {_value(key): _value(value) for key, value in zip(node.keys, node.values, strict=True) if key}
    if isinstance(node, ast.List | ast.Tuple):
        elements = [_value(element) for element in node.elts]
        return elements if isinstance(node, ast.List) else tuple(elements)
    return ast.literal_eval(node)
