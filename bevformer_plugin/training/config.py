"""Refusing a config that cannot run, before anything long starts."""

from mmdet3d.registry import METRICS
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from torch.utils.data import Dataset

from bevformer_plugin.errors import InputError
from bevformer_plugin.evaluation import NuScenesDevkitMetric

from .pretrained import fetch_pretrained

LOOP_SETTINGS = ('type', 'by_epoch', 'max_epochs', 'val_interval', 'val_begin')


def check_training(cfg: Config) -> None:
    """Refuse a config that cannot train, and fetch the files that its model starts from.

    Raises:
        InputError: if a section is missing, a file cannot be had, it counts in a way that makes no sense, or model and
            training data differ in their range.
    """
    _need(cfg, ('train_dataloader', 'val_dataloader', 'val_evaluator', 'optim_wrapper', 'train_cfg'), 'train')
    _check_loop(cfg.train_cfg)
    for part in ('train', 'val'):
        _check_dataloader(cfg, part)
    _at_least_one(cfg.optim_wrapper.get('accumulative_counts', 1), 'optim_wrapper.accumulative_counts')
    logger = (cfg.get('default_hooks') or {}).get('logger') or {}
    _at_least_one(logger.get('interval', 1), 'default_hooks.logger.interval')
    if cfg.get('resume'):
        raise InputError(f'resume={cfg.resume!r} in a config has no effect: give --resume on the command line')
    check_range(cfg)
    fetch_pretrained(cfg)


def check_testing(cfg: Config) -> None:
    """Refuse a config that cannot test.

    Raises:
        InputError: if a section is missing.
    """
    _need(cfg, ('test_dataloader', 'test_evaluator'), 'test')
    _check_dataloader(cfg, 'test')


def _need(cfg: Config, sections: tuple[str, ...], purpose: str) -> None:
    missing = [key for key in sections if cfg.get(key) is None]
    if missing:
        raise InputError(f'config {cfg.filename} cannot {purpose}: it lacks {", ".join(missing)}')


def _check_dataloader(cfg: Config, part: str) -> None:
    loader = cfg[f'{part}_dataloader']
    _at_least_one(loader.get('batch_size', 1), f'{part}_dataloader.batch_size')
    workers = loader.get('num_workers', 0)
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 0:
        raise InputError(f'{part}_dataloader.num_workers is a whole number from 0, got {workers!r}')


def _check_loop(loop: dict) -> None:
    """Refuse epochs that are counted in a way that makes no sense."""
    unknown = sorted(set(loop) - set(LOOP_SETTINGS))
    if unknown:
        raise InputError(
            f'train_cfg.{unknown[0]}={loop[unknown[0]]!r} has no effect: {", ".join(LOOP_SETTINGS)} are known'
        )
    if 'max_epochs' not in loop:
        raise InputError('train_cfg has no max_epochs: set train_cfg.max_epochs')
    for name in ('max_epochs', 'val_interval', 'val_begin'):
        _at_least_one(loop.get(name, 1), f'train_cfg.{name}')


def _at_least_one(value: object, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f'{name} is a whole number from 1, got {value!r}')


def check_range(cfg: Config) -> None:
    """Refuse training objects of another range than the model's: those outside its grid can never be detected.

    Raises:
        InputError: if the range differs, or the dataset has none and keeps all objects.
    """
    wanted = cfg.model.get('point_cloud_range')
    for dataset in _temporal_datasets(cfg.train_dataloader.dataset):
        given = dataset.get('point_cloud_range')
        if wanted is not None and (given is None or tuple(given) != tuple(wanted)):
            raise InputError(
                f'model.point_cloud_range is {tuple(wanted)} and that of train_dataloader.dataset '
                f'{given and tuple(given)}: set both alike, in a config from one variable point_cloud_range'
            )


def _temporal_datasets(dataset: dict) -> list[dict]:
    """Configs of the multi-camera datasets within a dataset, which may repeat or join others."""
    if dataset.get('type') == 'NuScenesTemporalDataset':
        return [dataset]
    inner = dataset.get('datasets') or ([dataset['dataset']] if 'dataset' in dataset else [])
    return [found for part in inner for found in _temporal_datasets(part)]


def direct_results(cfg: Config, results_path: str | None, format_only: bool) -> None:
    """Tell the config's test evaluator where the submission goes, and whether it is scored.

    Raises:
        InputError: if none of its evaluators writes submissions.
    """
    evaluators = [cfg.test_evaluator] if isinstance(cfg.test_evaluator, dict) else cfg.test_evaluator
    writing = [metric for metric in evaluators if METRICS.get(metric['type']) is NuScenesDevkitMetric]
    for metric in writing:
        metric.update(results_path=results_path, format_only=format_only)
    if not writing and (results_path or format_only):
        kinds = ', '.join(metric['type'] for metric in evaluators)
        raise InputError(f'--out and --format-only are for test_evaluator.type=NuScenesDevkitMetric, it is {kinds}')


def check_evaluation(evaluator: dict | list, dataset: Dataset) -> None:
    """Refuse an evaluator that could not score the dataset.

    Raises:
        FileNotFoundError: if files of the evaluator are missing.
        InputError: if it expects other samples or classes.
    """
    for metric in Evaluator(evaluator).metrics:
        if isinstance(metric, NuScenesDevkitMetric):
            metric.check_dataset(dataset)
