"""A config's model, its datasets and its evaluators have to belong together: checked before any work."""

import logging
from collections import Counter

from mmdet3d.datasets import CBGSDataset
from mmengine.config import Config
from mmengine.dataset import ClassBalancedDataset, ConcatDataset, RepeatDataset
from mmengine.logging import print_log
from torch.utils.data import Dataset

from bevformer_plugin.datasets import NuScenesTemporalDataset
from bevformer_plugin.errors import InputError
from bevformer_plugin.weights import check_initialization, read_checkpoint
from bevformer_plugin.weights.comparison import compare_can_bus, compare_frames, infos_command

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
        InputError: if numbers of classes or cameras differ between a dataset and the model, names are given twice,
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


def check_run(cfg: Config, datasets: dict[str, Dataset], load_from: str | None) -> list[str]:
    """As :func:`check_consistency` for a training; also reads the file that it starts from, if there is one.

    Raises:
        FileNotFoundError: if there is no such file.
        InputError: if it is damaged.
    """
    remarks = check_consistency(cfg, datasets)
    if load_from:
        remarks += check_initialization(cfg, datasets['train'], load_from, read_checkpoint(load_from))
    return remarks


def trained_names(dataset: Dataset) -> dict[str, list[str]]:
    """Names of the ``classes`` and ``cameras`` of a dataset, as far as it tells them."""
    metainfo = dataset.metainfo
    return {what: list(metainfo[what]) for what in ('classes', 'cameras') if metainfo.get(what)}


def log_remarks(remarks: list[str]) -> None:
    """Log each as a warning."""
    for remark in remarks:
        print_log(remark, logger='current', level=logging.WARNING)


def _check_numbers(model: dict, metainfo: dict, part: str) -> None:
    """Compare a dataset's classes and cameras with the model's numbers of them."""
    of_heads = [
        ('classes', head.get('num_classes'), f'heads.{name}.num_classes')
        for name, head in (model.get('heads') or {}).items()
        if head
    ]
    for what, number, where in (*of_heads, ('cameras', model.get('num_cameras'), 'num_cameras')):
        names = metainfo.get(what)
        if names is None:
            continue
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise InputError(f'{part}_dataloader.dataset names {", ".join(twice)} twice among its {what}')
        if number is not None and number != len(names):
            raise InputError(
                f'{part}_dataloader.dataset has {len(names)} {what} ({", ".join(names)}), model.{where} is {number}: '
                f'set model.{where}={len(names)}, or give the dataset {number} {what}'
            )


def _compare_validation(model: dict, train: Dataset, val: Dataset) -> list[str]:
    """Compare the data that a model is trained on with those it is validated on."""
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


def _say_shared_samples(train: Dataset, val: Dataset) -> list[str]:
    """A remark if samples that are trained on are validated on, as when one tries whether a model can overfit."""
    shared = _sample_tokens(train) & _sample_tokens(val)
    if not shared:
        return []
    return [
        f'training and validation share {len(shared)} samples: scores are of data that was trained on; to score '
        'unseen data, give val_dataloader.dataset and val_evaluator the ann_file of another split'
    ]


def _sample_tokens(dataset: Dataset) -> set[str]:
    """Tokens of a dataset's samples, also inside of MMEngine's and MMDetection3D's wrappers; none of other kinds."""
    if isinstance(dataset, NuScenesTemporalDataset):
        return set(dataset.sample_tokens())
    if isinstance(dataset, ConcatDataset):
        return set().union(*map(_sample_tokens, dataset.datasets))
    if isinstance(dataset, (RepeatDataset, ClassBalancedDataset, CBGSDataset)):
        return _sample_tokens(dataset.dataset)
    return set()


def _recommend_can_bus(model: dict, train: Dataset) -> list[str]:
    """Say that the published preset goes with the published code's CAN-bus messages."""
    preset = (model.get('ego_motion') or {}).get('preset')
    if preset != 'official_v1' or train.metainfo.get('can_bus') != 'nearest':
        return []
    return [
        'model.ego_motion has the preset official_v1, the infos to train on have CAN-bus rule nearest; published '
        f'weights go with the preset and the rule official_v1. {infos_command(train, "official_v1")}'
    ]
