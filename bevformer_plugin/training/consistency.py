"""A config's model, its datasets, its evaluators and a checkpoint have to belong together: checked before any work."""

from collections import Counter

from mmengine.config import Config
from torch.utils.data import Dataset

from bevformer_plugin.checkpoint import TrainingRecord
from bevformer_plugin.checkpoint.settings import CERTAINLY_WRONG, differences, model_settings, pipeline_settings
from bevformer_plugin.datasets.infos.can_bus import RECORDED

from .config import check_evaluation


def check_consistency(cfg: Config, datasets: dict[str, Dataset]) -> list[str]:
    """Refuse a config whose model, datasets and evaluators do not belong together.

    Args:
        cfg: the config.
        datasets: by part, of 'train', 'val' and 'test' those that are used.

    Returns:
        Remarks on what may be meant so, for the log.

    Raises:
        FileNotFoundError: if an evaluator's files are missing.
        ValueError: if numbers of classes or cameras differ between a dataset and the model, names are given twice,
            training and validation have other classes, cameras or CAN-bus rules, or an evaluator could not score its
            dataset.
    """
    remarks = []
    for part, dataset in datasets.items():
        _check_numbers(cfg.model, dataset.metainfo, part)
    if {'train', 'val'} <= datasets.keys():
        remarks += _compare_validation(cfg.model, datasets['train'], datasets['val'])
    for part in ('val', 'test'):
        if part in datasets:
            check_evaluation(cfg[f'{part}_evaluator'], datasets[part])
    if 'train' in datasets:
        remarks += _recommend_can_bus(cfg.model, datasets['train'])
    return remarks


def check_checkpoint(cfg: Config, dataset: Dataset, path: str, content: dict) -> list[str]:
    """Compare what a checkpoint records of its training with the config and the dataset that test or resume it.

    Classes are left to :func:`bevformer_plugin.checkpoint.load_weights`, which maps them by name.

    Args:
        cfg: the config.
        dataset: that is tested or trained on.
        path: the checkpoint, for messages.
        content: what :func:`bevformer_plugin.checkpoint.read_checkpoint` returned for it.

    Returns:
        Remarks for the log: what may be meant so, such as another image size or ``ego_motion``, with both values; and
        what the file does not record.

    Raises:
        ValueError: if cameras, CAN-bus rule, normalisation, range or another setting that weights cannot do without
            differ.
    """
    record = TrainingRecord.of_checkpoint(content)
    cameras = dataset.metainfo.get('cameras')
    if record.cameras and cameras and record.cameras != tuple(cameras):
        raise ValueError(
            f'{path} was trained with the cameras {", ".join(record.cameras)}, the dataset gives '
            f'{", ".join(cameras)}: give the dataset the same names in the same order'
        )
    remarks = _compare_can_bus(cfg.model, record.can_bus, dataset, path)
    found = _changed_settings(cfg, dataset, record)
    wrong = {name: values for name, values in found.items() if CERTAINLY_WRONG.search(name)}
    if wrong:
        raise ValueError(
            f'{path} was trained with other settings than the config has, which its weights cannot do without: '
            f'{_listed(wrong)}'
        )
    return remarks + _remarks(path, record, found)


def check_resumption(cfg: Config, dataset: Dataset, path: str, content: dict) -> list[str]:
    """As :func:`check_checkpoint`, for the checkpoint and the dataset with which a training goes on.

    Raises:
        ValueError: also if the classes are others, or in another order: the optimizer's state is not mapped.
    """
    recorded, classes = TrainingRecord.of_checkpoint(content).classes, dataset.metainfo.get('classes')
    if recorded and classes and recorded != tuple(classes):
        raise ValueError(
            f'{path} was trained with the classes {", ".join(recorded)}, the config has {", ".join(classes)}: resume '
            f'with the same classes in the same order, or start a new run from these weights with load_from={path}'
        )
    return check_checkpoint(cfg, dataset, path, content)


def check_initialization(cfg: Config, dataset: Dataset, path: str, content: dict) -> list[str]:
    """Remarks for the log: which settings of a detector that a run starts from are not the config's.

    Args:
        cfg: the config.
        dataset: that is trained on.
        path: the file to start from, for messages.
        content: what :func:`bevformer_plugin.checkpoint.read_checkpoint` returned for it.
    """
    record = TrainingRecord.of_checkpoint(content)
    if record.model.get('type') != cfg.model.type:
        return []
    return _remarks(path, record, _changed_settings(cfg, dataset, record))


def _check_numbers(model: dict, metainfo: dict, part: str) -> None:
    """Compare a dataset's classes and cameras with the model's numbers of them."""
    head = model.get('pts_bbox_head') or {}
    for what, number, where in (
        ('classes', head.get('num_classes'), 'pts_bbox_head.num_classes'),
        ('cameras', model.get('num_cameras'), 'num_cameras'),
    ):
        names = metainfo.get(what)
        if names is None:
            continue
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise ValueError(f'{part}_dataloader.dataset names {", ".join(twice)} twice among its {what}')
        if number is not None and number != len(names):
            raise ValueError(
                f'{part}_dataloader.dataset has {len(names)} {what} ({", ".join(names)}), model.{where} is {number}: '
                f'set model.{where}={len(names)}, or give the dataset {number} {what}'
            )


def _compare_validation(model: dict, train: Dataset, val: Dataset) -> list[str]:
    """Compare the data that a model is trained on with those it is validated on."""
    for what in ('classes', 'cameras'):
        trained, validated = (dataset.metainfo.get(what) for dataset in (train, val))
        if trained and validated and list(trained) != list(validated):
            raise ValueError(
                f'train_dataloader.dataset has the {what} {", ".join(trained)}, val_dataloader.dataset '
                f'{", ".join(validated)}: give both the same names in the same order'
            )
    remarks = _compare_can_bus(model, train.metainfo.get('can_bus'), val, 'the model')
    trained, validated = (dataset.metainfo.get('image_size') for dataset in (train, val))
    if trained != validated:
        remarks.append(f'image_size is {trained} in training and {validated} in validation')
    return remarks


def _compare_can_bus(model: dict, trained: str | None, dataset: Dataset, what: str) -> list[str]:
    """Compare the CAN-bus rule of the infos that weights are trained on with a dataset's."""
    given = dataset.metainfo.get('can_bus')
    if None in (trained, given) or trained == given or not _sees_messages(model):
        return []
    if 'none' not in (trained, given):
        raise ValueError(
            f'{what} is trained on infos of CAN-bus rule {trained}, those of the dataset have rule {given}.'
            f' {_infos_command(dataset, trained)}'
        )
    return [
        f'{what} is trained on infos of CAN-bus rule {trained}, those of the dataset have rule {given}: '
        f'{"in its training" if trained == "none" else "there"} acceleration, rotation rate and velocity of the '
        'vehicle are 0 for want of recorded messages, and the network finds other values than it has learned from'
    ]


def _sees_messages(model: dict) -> bool:
    """Whether the network sees the channels of the CAN-bus vector that come from messages."""
    channels = (model.get('ego_motion') or {}).get('can_bus_channels')
    return channels is None or any(RECORDED.start <= channel < RECORDED.stop for channel in channels)


def _recommend_can_bus(model: dict, train: Dataset) -> list[str]:
    """Say that the published preset goes with the published code's CAN-bus messages."""
    preset = (model.get('ego_motion') or {}).get('preset')
    if preset != 'official_v1' or train.metainfo.get('can_bus') != 'nearest':
        return []
    return [
        'model.ego_motion has the preset official_v1, the infos to train on have CAN-bus rule nearest; published '
        f'weights go with the preset and the rule official_v1. {_infos_command(train, "official_v1")}'
    ]


def _infos_command(dataset: Dataset, rule: str) -> str:
    """The command that makes a dataset's infos by another rule."""
    return (
        f'Make infos with: python tools/create_data.py nuscenes --root {getattr(dataset, "data_root", "ROOT")} '
        f'--version {dataset.metainfo.get("version", "VERSION")} --can-bus-message {rule} --overwrite'
    )


def _changed_settings(cfg: Config, dataset: Dataset, record: TrainingRecord) -> dict[str, tuple[object, object]]:
    """Settings of model, image size and test pipeline that differ from those recorded, if there is a record."""
    found = {}
    if record.model:
        model = differences(model_settings(record.model), model_settings(cfg.model))
        found.update({f'model.{name}': values for name, values in model.items()})
    size = dataset.metainfo.get('image_size')
    if record.image_size and size and record.image_size != tuple(size):
        found['dataset.image_size'] = (record.image_size, tuple(size))
    if record.test_pipeline and cfg.get('test_dataloader'):
        pipelines = (record.test_pipeline, cfg.test_dataloader.dataset.get('pipeline', []))
        changed = differences(*map(pipeline_settings, pipelines))
        found.update({f'test_dataloader.dataset.pipeline.{name}': values for name, values in changed.items()})
    return found


def _remarks(path: str, record: TrainingRecord, found: dict[str, tuple[object, object]]) -> list[str]:
    """What differs, and what cannot be compared because the file does not record it."""
    remarks = [f'{path} was trained with other settings than the config has: {_listed(found)}'] if found else []
    recorded = {'cameras': record.cameras, 'CAN-bus rule': record.can_bus, 'model settings': record.model}
    unknown = [what for what, value in recorded.items() if not value]
    if unknown:
        remarks.append(f'{path} does not record its {", ".join(unknown)}: not compared with the config and the data')
    return remarks


def _listed(found: dict[str, tuple[object, object]]) -> str:
    """Up to ten settings with both values."""
    listed = [f'{name} was {recorded}, is {current}' for name, (recorded, current) in list(found.items())[:10]]
    return '; '.join(listed) + f'; and {len(found) - 10} more' * (len(found) > 10)
