"""What a checkpoint says about itself: the classes, cameras, data and model settings of its training."""

import ast
from dataclasses import dataclass, field

from bevformer_plugin.errors import InputError

# Of a dataset's metainfo what trained weights depend on; checkpoints record it under ``meta.dataset_meta``.
RECORDED_METAINFO = ('classes', 'cameras', 'image_size', 'can_bus', 'frame')


@dataclass(frozen=True)
class TrainingRecord:
    """What is known of the training that weights come from; None and empty where the file does not say.

    Attributes:
        classes: names, in the order of the rows of the class layers.
        cameras: names, in the order of the model's inputs.
        image_size: (width, height) in pixels of the images before padding.
        can_bus: rule by which the infos chose CAN-bus messages, 'none' without messages.
        frame: of boxes and BEV, 'lidar' or 'vehicle'.
        model: the config's ``model``.
        test_pipeline: transforms of the config's test dataset.
        failed_step: the optimizer step that failed, of a file that was kept for inspection; else None.
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
        """Read the record of Lightning's or MMEngine's checkpoint; of a plain state dict nothing is known.

        What an older checkpoint does not record of its data is taken from its config's training dataset.
        """
        meta = content.get('meta') if isinstance(content.get('meta'), dict) else {}
        text = meta.get('config') or meta.get('cfg')
        names = ('model', 'train_dataloader', 'test_dataloader')
        config = read_config_text(text, names) if isinstance(text, str) else {}
        trained, tested = (config.get(f'{part}_dataloader', {}).get('dataset', {}) for part in ('train', 'test'))
        metainfo = {'cameras': trained.get('cameras'), 'image_size': trained.get('image_size')}
        metainfo.update(meta.get('dataset_meta') or {})
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


def recorded_metainfo(metainfo: dict) -> dict:
    """The part of a dataset's ``metainfo`` that checkpoints record, in plain types that are read without code."""
    known = {key: metainfo[key] for key in RECORDED_METAINFO if metainfo.get(key) is not None}
    return {key: value if isinstance(value, str) else list(value) for key, value in known.items()}


def read_config_text(text: str, names: tuple[str, ...]) -> dict:
    """Values of a config's text (``Config.pretty_text``) by name, read without running it.

    Literals, containers and ``dict(...)`` are read; a name whose value holds anything else is left out, as are those
    that are not there.
    """
    try:
        statements = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    values = {}
    for statement in statements:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        for target in targets:
            if isinstance(target, ast.Name) and target.id in names:
                try:
                    values[target.id] = _value(statement.value)
                except (ValueError, TypeError):
                    values.pop(target.id, None)
    return {name: value for name, value in values.items() if isinstance(value, dict)}


def _value(node: ast.expr) -> object:
    """Value of an expression of literals, containers and ``dict(...)``; ValueError for any other."""
    if isinstance(node, ast.Call):
        if not (isinstance(node.func, ast.Name) and node.func.id == 'dict') or node.args:
            raise InputError('a call of something other than dict with keywords')
        return {keyword.arg: _value(keyword.value) for keyword in node.keywords}
    if isinstance(node, ast.Dict):
        return {_value(key): _value(value) for key, value in zip(node.keys, node.values, strict=True)}
    if isinstance(node, ast.List | ast.Tuple):
        elements = [_value(element) for element in node.elts]
        return elements if isinstance(node, ast.List) else tuple(elements)
    return ast.literal_eval(node)
