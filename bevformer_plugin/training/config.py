"""Reading a config, and refusing what cannot run before anything long starts."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.evaluator import Evaluator
from mmengine.registry import init_default_scope
from torch.utils.data import Dataset

from bevformer_plugin.evaluation import NuScenesDevkitMetric

__all__ = ['DictAction', 'building', 'check_evaluation', 'check_testing', 'check_training', 'load_config']

LOOP_SETTINGS = ('type', 'by_epoch', 'max_epochs', 'val_interval', 'val_begin')


def load_config(path: str, options: dict | None = None) -> Config:
    """Read a config and apply ``--cfg-options``; the registries are ready afterwards.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it has no model.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'config {path} does not exist; the released ones are in configs/')
    cfg = Config.fromfile(path)
    if 'model' not in cfg:
        raise ValueError(f'config {path} has no model; configs under _base_ are parts of others')
    cfg.merge_from_dict(options or {})
    init_default_scope(cfg.get('default_scope', 'mmdet3d'))
    return cfg


def check_training(cfg: Config) -> None:
    """Refuse a config that cannot train.

    Raises:
        ValueError: if a section is missing, or counts in a way that makes no sense.
    """
    _need(cfg, ('train_dataloader', 'val_dataloader', 'val_evaluator', 'optim_wrapper', 'train_cfg'), 'train')
    _check_loop(cfg.train_cfg)
    _at_least_one(cfg.optim_wrapper.get('accumulative_counts', 1), 'optim_wrapper.accumulative_counts')
    logger = (cfg.get('default_hooks') or {}).get('logger') or {}
    _at_least_one(logger.get('interval', 1), 'default_hooks.logger.interval')
    if cfg.get('resume'):
        raise ValueError(f'resume={cfg.resume!r} in a config has no effect: give --resume on the command line')


def check_testing(cfg: Config) -> None:
    """Refuse a config that cannot test.

    Raises:
        ValueError: if a section is missing.
    """
    _need(cfg, ('test_dataloader', 'test_evaluator'), 'test')


@contextmanager
def building(section: str) -> Iterator[None]:
    """Turn what constructors raise about their arguments into a ValueError that names the section of the config.

    Args:
        section: of which something is built from the registries.
    """
    try:
        yield
    except (AssertionError, AttributeError, ImportError, KeyError, TypeError) as error:
        raise ValueError(f'{section} cannot be built from the config: {type(error).__name__}: {error}') from error


def _need(cfg: Config, sections: tuple[str, ...], purpose: str) -> None:
    missing = [key for key in sections if cfg.get(key) is None]
    if missing:
        raise ValueError(f'config {cfg.filename} cannot {purpose}: it lacks {", ".join(missing)}')


def _check_loop(loop: dict) -> None:
    """Refuse a training loop that does not count epochs, or counts them in a way that makes no sense."""
    if loop.get('type', 'EpochBasedTrainLoop') != 'EpochBasedTrainLoop' or 'max_iters' in loop:
        raise ValueError(
            f'train_cfg counts iterations (type={loop.get("type")}, max_iters={loop.get("max_iters")}), and runs are '
            'counted in epochs here: set train_cfg.max_epochs, without type and max_iters'
        )
    if loop.get('by_epoch', True) is not True:
        raise ValueError('train_cfg counts iterations (by_epoch=False); set max_epochs instead')
    unknown = sorted(set(loop) - set(LOOP_SETTINGS))
    if unknown:
        raise ValueError(
            f'train_cfg.{unknown[0]}={loop[unknown[0]]!r} has no effect: {", ".join(LOOP_SETTINGS)} are known'
        )
    if 'max_epochs' not in loop:
        raise ValueError('train_cfg has no max_epochs: set train_cfg.max_epochs')
    for name in ('max_epochs', 'val_interval', 'val_begin'):
        _at_least_one(loop.get(name, 1), f'train_cfg.{name}')


def _at_least_one(value: object, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f'{name} is a whole number from 1, got {value!r}')


def check_evaluation(evaluator: dict | list, dataset: Dataset) -> None:
    """Refuse an evaluator that could not score the dataset.

    Raises:
        FileNotFoundError: if files of the evaluator are missing.
        ValueError: if it expects other samples or classes.
    """
    for metric in Evaluator(evaluator).metrics:
        if isinstance(metric, NuScenesDevkitMetric):
            metric.check_dataset(dataset)
