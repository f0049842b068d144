"""What a checkpoint records of its training against the config and the dataset that it is used with."""

from mmengine.config import Config
from torch.utils.data import Dataset

from bevformer_plugin.datasets.infos.can_bus import RECORDED
from bevformer_plugin.errors import InputError

from .record import TrainingRecord
from .settings import CERTAINLY_WRONG, differences, model_settings, pipeline_settings

FRAMES = {'lidar': 'LiDAR', 'vehicle': 'vehicle'}  # of the infos' metainfo, as messages name them


def check_checkpoint(cfg: Config, dataset: Dataset, path: str, content: dict) -> list[str]:
    """Compare what a checkpoint records of its training with the config and the dataset that test or resume it.

    Classes are left to :func:`.files.load_weights`, which maps them by name.

    Args:
        cfg: the config.
        dataset: that is tested or trained on.
        path: the checkpoint, for messages.
        content: what :func:`.files.read_checkpoint` returned for it.

    Returns:
        Remarks for the log: what may be meant so, such as another image size or ``ego_motion``, with both values; and
        what the file does not record.

    Raises:
        InputError: if cameras, frame of the boxes, CAN-bus rule, normalisation, range or another setting that weights
            cannot do without differ.
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
    found = _changed_settings(cfg, dataset, record)
    wrong = {name: values for name, values in found.items() if CERTAINLY_WRONG.search(name)}
    if wrong:
        raise InputError(
            f'{path} was trained with other settings than the config has, which its weights cannot do without: '
            f'{_listed(wrong)}'
        )
    return remarks + _remarks(path, record, found)


def check_resumption(cfg: Config, dataset: Dataset, path: str, content: dict) -> list[str]:
    """As :func:`check_checkpoint`, for the checkpoint and the dataset with which a training goes on.

    Raises:
        InputError: also if the classes are others, or in another order: the optimizer's state is not mapped.
    """
    recorded, classes = TrainingRecord.of_checkpoint(content).classes, dataset.metainfo.get('classes')
    if recorded and classes and recorded != tuple(classes):
        raise InputError(
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
        content: what :func:`.files.read_checkpoint` returned for it.
    """
    record = TrainingRecord.of_checkpoint(content)
    if record.model.get('type') != cfg.model.type:
        return []
    given, remarks = dataset.metainfo.get('frame'), []
    if record.frame and given and record.frame != given:
        remarks.append(
            f'{path} was trained on boxes in the frame of the {FRAMES[record.frame]}, those of the dataset are in '
            f'that of the {FRAMES[given]}: the training has to learn other heights'
        )
    return remarks + _remarks(path, record, _changed_settings(cfg, dataset, record))


def compare_frames(trained: str | None, dataset: Dataset, what: str) -> list[str]:
    """Compare the frame of the boxes that weights are trained on, 'lidar' or 'vehicle', with a dataset's.

    Raises:
        InputError: they differ, so that all heights would be off by the LiDAR's height above the ground.
    """
    given = dataset.metainfo.get('frame')
    if trained is None and given == 'vehicle':
        return [
            f'{what} does not record in which frame its boxes are, those of the dataset are in that of the vehicle, '
            'for want of a LIDAR_TOP: weights trained with a LiDAR find heights that are off by its height'
        ]
    if None in (trained, given) or trained == given:
        return []
    remedy = 'without LIDAR_TOP' if trained == 'vehicle' else 'with LIDAR_TOP'
    raise InputError(
        f'{what} is trained on boxes in the frame of the {FRAMES[trained]}, those of the dataset are in that of the '
        f'{FRAMES[given]}: make infos from tables {remedy}, or train new weights on these (load_from starts from them)'
    )


def compare_can_bus(model: dict, trained: str | None, dataset: Dataset, what: str) -> list[str]:
    """Compare the CAN-bus rule of the infos that weights are trained on with a dataset's."""
    given = dataset.metainfo.get('can_bus')
    if None in (trained, given) or trained == given or not _sees_messages(model):
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
    """Whether the network sees the channels of the CAN-bus vector that come from messages."""
    channels = (model.get('ego_motion') or {}).get('can_bus_channels')
    return channels is None or any(RECORDED.start <= channel < RECORDED.stop for channel in channels)


def infos_command(dataset: Dataset, rule: str) -> str:
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
