"""Checks that a config's model, datasets and evaluators belong together, made before any work."""

import logging
from collections import Counter

from mmdet3d.datasets import CBGSDataset
from mmdet3d.registry import DATA_SAMPLERS, MODELS
from mmengine.config import Config
from mmengine.dataset import ClassBalancedDataset, ConcatDataset, RepeatDataset
from mmengine.logging import print_log

from bevformer_plugin.configuration import building
from bevformer_plugin.configuration.unread_settings import is_config_of
from bevformer_plugin.datasets import (
    NuScenesTemporalDataset,
    SceneStreamBatchSampler,
    SceneStreamSampler,
    SeededItems,
)
from bevformer_plugin.datasets.described import DescribedDataset
from bevformer_plugin.datasets.setting_types import DEFAULT_QUEUE_LENGTH
from bevformer_plugin.errors import InputError
from bevformer_plugin.maps import find_protocol
from bevformer_plugin.models import BEVFormer
from bevformer_plugin.seeding import seeded_generators
from bevformer_plugin.weights import check_initialization, read_checkpoint
from bevformer_plugin.weights.comparison import compare_can_bus, compare_frames, infos_command

from .config import check_evaluation
from .initial_weights import require_file


def check_consistency(cfg: Config, datasets: dict[str, DescribedDataset]) -> list[str]:
    """Refuse a config whose model, datasets and evaluators do not belong together.

    Args:
        cfg: the config.
        datasets: the datasets in use, by 'train', 'val' and 'test'.

    Returns:
        Remarks for the log on what is unusual but may be intended.

    Raises:
        FileNotFoundError: if an evaluator's files are missing.
        InputError: if numbers of classes or cameras differ between a dataset and the model, names are given twice,
            training and validation have other classes, cameras or CAN-bus rules, a model of several frames is trained
            on other frames, an evaluator could not score its dataset, or a sampler does not stream over scenes.
    """
    remarks = []
    for part, dataset in datasets.items():
        _check_numbers(cfg.model, dataset.metainfo, part)
        _check_maps(cfg.model, dataset.metainfo.get('map_protocol'), part)
    remarks += _say_maps_beyond_the_bev(cfg.model)
    if {'train', 'val'} <= datasets.keys():
        remarks += _compare_validation(cfg.model, datasets['train'], datasets['val'])
    for part in ('val', 'test'):
        if part in datasets:
            check_evaluation(cfg, part, datasets[part])
            _check_streaming(cfg, part, datasets[part])
    if getattr(datasets.get('train'), 'test_mode', False):
        raise InputError(
            'train_dataloader.dataset.test_mode=True gives single frames without true boxes to train on: leave it out'
        )
    if 'train' in datasets:
        remarks += _check_frames(cfg.model, cfg.train_dataloader.dataset)
        remarks += _recommend_can_bus(cfg.model, datasets['train'])
    return remarks


def check_run(cfg: Config, datasets: dict[str, DescribedDataset], load_from: str | None) -> list[str]:
    """Check a training as :func:`check_consistency` does, and read the file whose weights it starts from, if any.

    Raises:
        FileNotFoundError: if the file does not exist.
        InputError: if the file is damaged, or for the reasons of :func:`check_consistency`.
    """
    remarks = check_consistency(cfg, datasets)
    begin, epochs = cfg.train_cfg.get('val_begin', 1), cfg.train_cfg.max_epochs
    if begin > epochs:
        remarks.append(
            f'train_cfg.val_begin={begin} is beyond train_cfg.max_epochs={epochs}: nothing is validated, and no best '
            'checkpoint is kept'
        )
    if load_from:
        require_file(load_from)
        remarks += check_initialization(cfg, datasets['train'], load_from, read_checkpoint(load_from))
    return remarks


def check_first_items(datasets: dict[str, DescribedDataset]) -> None:
    """Make the first item of every dataset as a worker process would, so that a broken pipeline is found at once.

    Args:
        datasets: the datasets in use, by 'train', 'val' and 'test'.

    Raises:
        FileNotFoundError: if a file of the item is missing.
        InputError: if a transform lacks what another should have given, or items are not what detectors take.
    """
    for part, dataset in datasets.items():
        section = f'{part}_dataloader.dataset'
        with building(f'the first item of {section}'), seeded_generators(0):
            item = dataset[0]
        if not (isinstance(item, dict) and {'inputs', 'data_samples'} <= item.keys()):
            found = ', '.join(map(str, item)) if isinstance(item, dict) else type(item).__name__
            raise InputError(
                f'{section} gives items of {found}, and detectors take inputs and data_samples: end its pipeline with '
                "dict(type='PackTemporalInputs')"
            )


def trained_names(dataset: DescribedDataset) -> dict[str, list[str]]:
    """Collect the names of a dataset's ``classes`` and ``cameras``, leaving out what its metainfo does not have."""
    metainfo = dataset.metainfo
    return {what: list(metainfo[what]) for what in ('classes', 'cameras') if metainfo.get(what)}


def log_remarks(remarks: list[str]) -> None:
    """Log each remark as a warning."""
    for remark in remarks:
        print_log(remark, logger='current', level=logging.WARNING)


def _check_numbers(model: dict, metainfo: dict, part: str) -> None:
    """Compare how many classes and cameras a dataset has with the numbers that the model is built for."""
    of_heads = [
        ('classes', head.get('num_classes'), f'heads.{name}.num_classes')
        for name, head in (model.get('heads') or {}).items()
        if head
    ]
    for kind, number, setting in (*of_heads, ('cameras', model.get('num_cameras'), 'num_cameras')):
        names = metainfo.get(kind)
        if names is None:
            continue
        repeated = [name for name, count in Counter(names).items() if count > 1]
        if repeated:
            raise InputError(f'{part}_dataloader.dataset names {", ".join(repeated)} twice among its {kind}')
        if number is not None and number != len(names):
            raise InputError(
                f'{part}_dataloader.dataset has {len(names)} {kind} ({", ".join(names)}), model.{setting} is '
                f'{number}: set model.{setting}={len(names)}, or give the dataset {number} {kind}'
            )


def _check_maps(model: dict, drawn: str | None, part: str) -> None:
    """Compare the map protocol of a dataset, None for one that draws no maps, with those of the model's heads.

    Only training needs true maps; a model may be tested without scores of its maps.
    """
    protocols = _map_protocols(model)
    of_dataset = f'{part}_dataloader.dataset'
    if drawn is not None and not protocols:
        raise InputError(
            f'{of_dataset}.map_protocol={drawn!r} has no effect: none of model.heads is a MapHead; add one or leave '
            'map_protocol out'
        )
    for setting, protocol in protocols.items():
        if drawn != protocol and (drawn is not None or part == 'train'):
            found = 'has no map_protocol' if drawn is None else f'draws maps by {drawn!r}'
            raise InputError(
                f'{setting} is {protocol!r} and {of_dataset} {found}: set both alike, in a config from one variable '
                "map_protocol, with dict(type='LoadMapLabels') in the dataset's pipeline"
            )


def _map_protocols(model: dict) -> dict[str, object]:
    """Find the map protocols of a model's heads by the names of their settings."""
    return {
        f'model.heads.{name}.protocol': head['protocol']
        for name, head in (model.get('heads') or {}).items()
        if head and 'protocol' in head
    }


def _say_maps_beyond_the_bev(model: dict) -> list[str]:
    """Remark on maps that reach farther than the BEV, as of a detector for a smaller range."""
    remarks, bev = [], model.get('point_cloud_range')
    if not isinstance(bev, list | tuple) or len(bev) != 6 or not all(isinstance(one, int | float) for one in bev):
        return []  # which the detector itself refuses
    for setting, name in _map_protocols(model).items():
        reach = find_protocol(name).grid.point_cloud_range
        if all(bev[axis] <= reach[axis] and reach[axis + 3] <= bev[axis + 3] for axis in (0, 1)):
            continue
        remarks.append(
            f'maps by {setting}={name!r} reach to ({reach[3]:g}, {reach[4]:g}) m, the BEV by model.point_cloud_range '
            f'to ({bev[3]:g}, {bev[4]:g}) m: cells beyond are predicted from nothing, and count in the scores'
        )
    return remarks


def _check_frames(model: dict, dataset: dict) -> list[str]:
    """Compare the frames that a detector uses with those that its training items have.

    Returns:
        A remark on a BEVFormer that learns without the history that it uses afterwards, or the other way round.

    Raises:
        InputError: if a BEVFormerV2 fuses other frames than the items have.
    """
    while 'dataset' in dataset:  # of a wrapper such as RepeatDataset
        dataset = dataset['dataset']
    fused, given = model.get('frame_offsets'), dataset.get('frame_offsets')
    if fused is None:
        return _compare_history(model, dataset)
    if given is None or list(given) != list(fused):
        raise InputError(
            f'model.frame_offsets is {list(fused)}, train_dataloader.dataset.frame_offsets is {given}: the model '
            'would be trained on other frames than it fuses; give both the same'
        )
    return []


def _compare_history(model: dict, dataset: dict) -> list[str]:
    """Remark on a BEVFormer that is trained without history and uses it afterwards, or the other way round."""
    if dataset.get('type') != 'NuScenesTemporalDataset' or not is_config_of(model, MODELS, BEVFormer):
        return []
    offsets, length = dataset.get('frame_offsets'), dataset.get('queue_length')
    given = len(offsets) if offsets else DEFAULT_QUEUE_LENGTH if length is None else length
    if model.get('use_history', True) and given == 1:
        return [
            'train_dataloader.dataset.queue_length=1 trains without history, which the model uses in validation and '
            'test: give two frames or more, or set model.use_history=False'
        ]
    if not model.get('use_history', True) and given > 1:
        return [
            f'model.use_history=False uses one of the {given} frames that items of train_dataloader.dataset have: '
            'queue_length=1 loads no others'
        ]
    return []


def _compare_validation(model: dict, train: DescribedDataset, val: DescribedDataset) -> list[str]:
    """Compare the training data of a model with its validation data."""
    for what in ('classes', 'cameras'):
        trained, validated = (dataset.metainfo.get(what) for dataset in (train, val))
        if trained and validated and list(trained) != list(validated):
            raise InputError(
                f'train_dataloader.dataset has the {what} {", ".join(trained)}, val_dataloader.dataset '
                f'{", ".join(validated)}: give both the same names in the same order'
            )
    remarks = compare_frames(train.metainfo.get('frame'), val, 'the model')
    remarks += compare_can_bus(model, train.metainfo.get('can_bus'), val, 'the model')
    trained, validated = (dataset.metainfo.get('image_size') for dataset in (train, val))
    if trained != validated:
        remarks.append(f'image_size is {trained} in training and {validated} in validation')
    return remarks + _say_shared_samples(train, val)


def _say_shared_samples(train: DescribedDataset, val: DescribedDataset) -> list[str]:
    """Remark on samples that training and validation share, as in a test whether a model can overfit."""
    shared = _sample_tokens(train) & _sample_tokens(val)
    if not shared:
        return []
    return [
        f'training and validation share {len(shared)} samples: scores are of data that was trained on; to score '
        'unseen data, give val_dataloader.dataset and val_evaluator the ann_file of another split'
    ]


def _sample_tokens(dataset: DescribedDataset) -> set[str]:
    """Collect the tokens of a dataset's samples, also within wrappers; datasets of other kinds have none."""
    if isinstance(dataset, NuScenesTemporalDataset):
        return set(dataset.sample_tokens())
    if isinstance(dataset, ConcatDataset):
        return set().union(*map(_sample_tokens, dataset.datasets))
    if isinstance(dataset, (RepeatDataset, ClassBalancedDataset, CBGSDataset, SeededItems)):
        return _sample_tokens(dataset.dataset)
    return set()


def _check_streaming(cfg: Config, part: str, dataset: DescribedDataset) -> None:
    """Refuse samplers that do not give a detector with history every scene in time order, frame by frame.

    Others deal frames out to processes one by one, shuffle them, or put two of a scene into a batch, and the detector
    would take another frame's BEV for that of the frame before, or none.
    """
    loader = cfg[f'{part}_dataloader']
    if not (is_config_of(cfg.model, MODELS, BEVFormer) and isinstance(dataset, NuScenesTemporalDataset)):
        return
    streams = is_config_of(loader.get('sampler'), DATA_SAMPLERS, SceneStreamSampler)
    if _uses_history(cfg.model) and not streams:
        raise InputError(
            f'{part}_dataloader.sampler is {(loader.get("sampler") or {}).get("type")}, which does not give whole '
            'scenes in time order, and the model takes its history from the frame before: set '
            "sampler=dict(type='SceneStreamSampler')"
        )
    if loader.get('batch_size', 1) > 1 and not (
        streams and is_config_of(loader.get('batch_sampler'), DATA_SAMPLERS, SceneStreamBatchSampler)
    ):
        raise InputError(
            f'{part}_dataloader.batch_size={loader["batch_size"]} would put two frames of a scene into a batch, and '
            "the later one needs the earlier: set batch_sampler=dict(type='SceneStreamBatchSampler') beside "
            "sampler=dict(type='SceneStreamSampler'), or batch_size=1"
        )


def _uses_history(model: dict) -> bool:
    """Tell whether a detector of this family uses frames before the current one."""
    return len(model['frame_offsets']) > 1 if 'frame_offsets' in model else model.get('use_history', True)


def _recommend_can_bus(model: dict, train: DescribedDataset) -> list[str]:
    """Remark that the published preset belongs with the CAN-bus messages of the published code."""
    preset = (model.get('ego_motion') or {}).get('preset')
    if preset != 'official_v1' or train.metainfo.get('can_bus') != 'nearest':
        return []
    return [
        'model.ego_motion has the preset official_v1, the infos to train on have CAN-bus rule nearest; published '
        f'weights go with the preset and the rule official_v1. {infos_command(train, "official_v1")}'
    ]
