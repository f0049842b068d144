"""Comparison of what a checkpoint records of its training with the config and the dataset it is used with."""

from mmengine.config import Config

from bevformer_plugin.datasets.described import DescribedDataset
from bevformer_plugin.datasets.infos.can_bus import RECORDED
from bevformer_plugin.errors import InputError

from .record import TrainingRecord
from .settings import CERTAINLY_WRONG, differences, model_settings, pipeline_settings

FRAME_NAMES = {'lidar': 'LiDAR', 'vehicle': 'vehicle'}  # values of the metainfo's frame, as messages name them


def check_checkpoint(cfg: Config, dataset: DescribedDataset, path: str, content: dict) -> list[str]:
    """Compare what a checkpoint records of its training with the config and the dataset that test or resume it.

    Classes are not compared here, since :func:`.files.load_weights` maps them by name.

    Args:
        cfg: the config.
        dataset: the dataset to test or train on.
        path: file of the checkpoint, for messages.
        content: what :func:`.files.read_checkpoint` returned for it.

    Returns:
        Remarks for the log: differences that may be intended, such as another image size or ``ego_motion``, with both
        values; and what the file does not record.

    Raises:
        InputError: if a setting differs without which the weights are certainly wrong: the cameras, the frame of the
            boxes, the CAN-bus rule, the normalisation or the range.
    """
    record = TrainingRecord.of_checkpoint(content)
    cameras = dataset.metainfo.get('cameras')
    if record.cameras and cameras and record.cameras != tuple(cameras):
        raise InputError(
            f'{path} was trained with the cameras {", ".join(record.cameras)}, the dataset gives '
            f'{", ".join(cameras)}: give the dataset the same names in the same order'
        )
    remarks = compare_frames(record.frame, dataset, path)
    remarks += compare_can_bus(cfg.model, record.can_bus, dataset, path)
    changed = _changed_settings(cfg, dataset, record)
    wrong = {name: values for name, values in changed.items() if CERTAINLY_WRONG.search(name)}
    if wrong:
        raise InputError(
            f'{path} was trained with other settings than the config has, which its weights cannot do without: '
            f'{_listed(wrong)}'
        )
    return remarks + _remarks(path, record, changed)


def check_resumption(cfg: Config, dataset: DescribedDataset, path: str, content: dict) -> list[str]:
    """Compare as :func:`check_checkpoint` does, for the checkpoint and the dataset with which a training goes on.

    Raises:
        InputError: for the reasons of :func:`check_checkpoint`, and if the classes or their order differ, because the
            optimizer's state cannot be mapped to another order.
    """
    recorded, classes = TrainingRecord.of_checkpoint(content).classes, dataset.metainfo.get('classes')
    if recorded and classes and recorded != tuple(classes):
        raise InputError(
            f'{path} was trained with the classes {", ".join(recorded)}, the config has {", ".join(classes)}: resume '
            f'with the same classes in the same order, or start a new run from these weights with load_from={path}'
        )
    return check_checkpoint(cfg, dataset, path, content)


def check_initialization(cfg: Config, dataset: DescribedDataset, path: str, content: dict) -> list[str]:
    """Compare the settings of a detector whose weights a training starts from with the config.

    Args:
        cfg: the config.
        dataset: the dataset to train on.
        path: the file to start from, for messages.
        content: what :func:`.files.read_checkpoint` returned for it.

    Returns:
        Remarks for the log on what differs; none if the file is not of a detector of the same type.
    """
    record = TrainingRecord.of_checkpoint(content)
    if record.model.get('type') != cfg.model.get('type'):
        return []
    given, remarks = dataset.metainfo.get('frame'), []
    if record.frame and given and record.frame != given:
        remarks.append(
            f'{path} was trained on boxes in the frame of the {FRAME_NAMES[record.frame]}, those of the dataset are '
            f'in that of the {FRAME_NAMES[given]}: the training has to learn other heights'
        )
    return remarks + _remarks(path, record, _changed_settings(cfg, dataset, record))


def compare_frames(trained: str | None, dataset: DescribedDataset, what: str) -> list[str]:
    """Compare the coordinate frame of the boxes that weights are trained on with that of a dataset.

    Args:
        trained: 'lidar' or 'vehicle', or None if it is not known.
        dataset: the dataset that the weights are used with.
        what: name of the weights, for messages.

    Returns:
        A remark for the log if the frame of the weights is not known and may be another, else nothing.

    Raises:
        InputError: if the frames differ, since all heights would be off by the LiDAR's height above the ground.
    """
    given = dataset.metainfo.get('frame')
    if trained is None and given == 'vehicle':
        return [
            f'{what} does not record in which frame its boxes are, those of the dataset are in that of the vehicle, '
            'for want of a LIDAR_TOP: weights trained with a LiDAR find heights that are off by its height'
        ]
    if trained is None or given is None or trained == given:
        return []
    remedy = 'without LIDAR_TOP' if trained == 'vehicle' else 'with LIDAR_TOP'
    raise InputError(
        f'{what} is trained on boxes in the frame of the {FRAME_NAMES[trained]}, those of the dataset are in that of '
        f'the {FRAME_NAMES[given]}: make infos from tables {remedy}, or train new weights on these (load_from starts '
        'from them)'
    )


def compare_can_bus(model: dict, trained: str | None, dataset: DescribedDataset, what: str) -> list[str]:
    """Compare the CAN-bus rule of the infos that weights are trained on with that of a dataset.

    Args:
        model: the config's model.
        trained: the rule of the infos that the weights are trained on, or None if it is not known.
        dataset: the dataset that the weights are used with.
        what: name of the weights, for messages.

    Returns:
        A remark for the log if one of them has no recorded messages, else nothing.

    Raises:
        InputError: if both have messages, chosen by different rules.
    """
    given = dataset.metainfo.get('can_bus')
    if trained is None or given is None or trained == given or not _sees_messages(model):
        return []
    if 'none' not in (trained, given):
        raise InputError(
            f'{what} is trained on infos of CAN-bus rule {trained}, those of the dataset have rule {given}.'
            f' {infos_command(dataset, trained)}'
        )
    return [
        f'{what} is trained on infos of CAN-bus rule {trained}, those of the dataset have rule {given}: '
        f'{"in its training" if trained == "none" else "there"} acceleration, rotation rate and velocity of the '
        'vehicle are 0 for want of recorded messages, and the network finds other values than it has learned from'
    ]


def _sees_messages(model: dict) -> bool:
    """Tell whether the network sees channels of the CAN-bus vector that come from recorded messages."""
    channels = (model.get('ego_motion') or {}).get('can_bus_channels')
    return channels is None or any(RECORDED.start <= channel < RECORDED.stop for channel in channels)


def infos_command(dataset: DescribedDataset, rule: str) -> str:
    """Write the command that makes the infos of a dataset with another CAN-bus rule."""
    return (
        f'Make infos with: python tools/create_data.py nuscenes --root {getattr(dataset, "data_root", "ROOT")} '
        f'--version {dataset.metainfo.get("version", "VERSION")} --can-bus-message {rule} --overwrite'
    )


def _changed_settings(
    cfg: Config, dataset: DescribedDataset, record: TrainingRecord
) -> dict[str, tuple[object, object]]:
    """Collect recorded settings of model, images and test pipeline that differ from the config, with both values."""
    changed = {}
    if record.model:
        model = differences(model_settings(record.model), model_settings(cfg.model))
        alone = _heads(record.model) ^ _heads(cfg.model)
        changed.update(
            {f'model.{name}': values for name, values in model.items() if not name.startswith(tuple(alone))}
        )
    size = dataset.metainfo.get('image_size')
    if record.image_size and size and record.image_size != tuple(size):
        changed['dataset.image_size'] = (record.image_size, tuple(size))
    if record.test_pipeline and cfg.get('test_dataloader'):
        pipelines = (record.test_pipeline, cfg.test_dataloader.dataset.get('pipeline', []))
        pipeline = differences(*map(pipeline_settings, pipelines))
        changed.update({f'test_dataloader.dataset.pipeline.{name}': values for name, values in pipeline.items()})
    return changed


def _heads(model: dict) -> set[str]:
    """Return how names of settings of a model's heads begin; a head that only one of two models has says enough."""
    return {f'heads.{name}.' for name, head in (model.get('heads') or {}).items() if head}


def _remarks(path: str, record: TrainingRecord, changed: dict[str, tuple[object, object]]) -> list[str]:
    """Write remarks for the log on settings that differ, and on those that the file does not record."""
    remarks = [f'{path} was trained with other settings than the config has: {_listed(changed)}'] if changed else []
    recorded = {'cameras': record.cameras, 'CAN-bus rule': record.can_bus, 'model settings': record.model}
    unknown = [what for what, value in recorded.items() if not value]
    if unknown:
        remarks.append(f'{path} does not record its {", ".join(unknown)}: not compared with the config and the data')
    return remarks


def _listed(changed: dict[str, tuple[object, object]]) -> str:
    """List up to ten settings with their recorded and their current value."""
    listed = [f'{name} was {recorded}, is {current}' for name, (recorded, current) in list(changed.items())[:10]]
    return '; '.join(listed) + f'; and {len(changed) - 10} more' * (len(changed) > 10)
