"""Reading a config, and refusing what cannot run before anything long starts."""

import shutil
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only
from mmdet3d.registry import METRICS
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import init_default_scope
from torch.utils.data import Dataset

from bevformer_plugin.evaluation import NuScenesDevkitMetric

from .checkpoints import CHECKPOINTS
from .pretrained import fetch_pretrained
from .unread_settings import (
    refuse_unknown_options,
    refuse_unread_arguments,
    refuse_unread_variables,
)

__all__ = [
    'check_evaluation',
    'check_testing',
    'check_training',
    'direct_results',
    'load_config',
    'new_work_dir',
]


def load_config(path: str, options: dict | None = None) -> Config:
    """Read a config and apply ``--cfg-options``; the registries are ready afterwards.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it has no model, if the options do not fit it, or if it or they set something that nothing
            reads.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'config {path} does not exist; the released ones are in configs/')
    try:
        cfg = Config.fromfile(path)
    except (SyntaxError, NameError, AttributeError, KeyError, TypeError, FileNotFoundError, ImportError) as error:
        raise ValueError(f'config {path} cannot be read: {type(error).__name__}: {error}') from error
    if 'model' not in cfg:
        raise ValueError(f'config {path} has no model; configs under _base_ are parts of others')
    init_default_scope(cfg.get('default_scope', 'mmdet3d'))
    refuse_unread_variables(path, cfg)
    refuse_unknown_options(options or {}, cfg)
    try:
        cfg.merge_from_dict(options or {})
    except (TypeError, KeyError, IndexError) as error:
        raise ValueError(f'--cfg-options {options} do not fit config {path}: {error}') from error
    refuse_unread_arguments(cfg)
    return cfg


def check_training(cfg: Config) -> None:
    """Refuse a config that cannot train, and fetch the files that its model starts from.

    Raises:
        ValueError: if a section is missing, a file cannot be had, it counts iterations, or model and training data
            differ in their range.
    """
    needed = ('train_dataloader', 'val_dataloader', 'val_evaluator', 'optim_wrapper', 'train_cfg')
    missing = [key for key in needed if cfg.get(key) is None]
    if missing:
        raise ValueError(f'config {cfg.filename} cannot train: it lacks {", ".join(missing)}')
    if not cfg.train_cfg.get('by_epoch', True):
        raise ValueError('train_cfg counts iterations (by_epoch=False); set max_epochs instead')
    check_range(cfg)
    fetch_pretrained(cfg)


def check_range(cfg: Config) -> None:
    """Refuse training objects of another range than the model's: those outside its grid can never be detected.

    Raises:
        ValueError: if the range differs, or the dataset has none and keeps all objects.
    """
    wanted = cfg.model.get('point_cloud_range')
    for dataset in _temporal_datasets(cfg.train_dataloader.dataset):
        given = dataset.get('point_cloud_range')
        if wanted is not None and (given is None or tuple(given) != tuple(wanted)):
            raise ValueError(
                f'model.point_cloud_range is {tuple(wanted)} and that of train_dataloader.dataset '
                f'{given and tuple(given)}: set both alike, in a config from one variable point_cloud_range'
            )


def _temporal_datasets(dataset: dict) -> list[dict]:
    """Configs of the multi-camera datasets within a dataset, which may repeat or join others."""
    if dataset.get('type') == 'NuScenesTemporalDataset':
        return [dataset]
    inner = dataset.get('datasets') or ([dataset['dataset']] if 'dataset' in dataset else [])
    return [found for part in inner for found in _temporal_datasets(part)]


def check_testing(cfg: Config) -> None:
    """Refuse a config that cannot test.

    Raises:
        ValueError: if a section is missing.
    """
    missing = [key for key in ('test_dataloader', 'test_evaluator') if cfg.get(key) is None]
    if missing:
        raise ValueError(f'config {cfg.filename} cannot test: it lacks {", ".join(missing)}')


def direct_results(cfg: Config, results_path: str | None, format_only: bool) -> None:
    """Tell the config's test evaluator where the submission goes, and whether it is scored.

    Raises:
        ValueError: if none of its evaluators writes submissions.
    """
    evaluators = [cfg.test_evaluator] if isinstance(cfg.test_evaluator, dict) else cfg.test_evaluator
    writing = [metric for metric in evaluators if METRICS.get(metric['type']) is NuScenesDevkitMetric]
    for metric in writing:
        metric.update(results_path=results_path, format_only=format_only)
    if not writing and (results_path or format_only):
        kinds = ', '.join(metric['type'] for metric in evaluators)
        raise ValueError(f'--out and --format-only are for test_evaluator.type=NuScenesDevkitMetric, it is {kinds}')


def check_evaluation(evaluator: dict | list, dataset: Dataset) -> None:
    """Refuse an evaluator that could not score the dataset.

    Raises:
        FileNotFoundError: if files of the evaluator are missing.
        ValueError: if it expects other samples or classes.
    """
    for metric in Evaluator(evaluator).metrics:
        if isinstance(metric, NuScenesDevkitMetric):
            metric.check_dataset(dataset)


def new_work_dir(path: str, overwrite: bool, resume: bool) -> Path:
    """Create the folder of a run; an existing one needs ``overwrite``, which removes the run in it, or ``resume``.

    Of several processes only the first does so; the others may find what it has already written.

    Raises:
        FileExistsError: if the folder has files of another run.
    """
    folder = Path(path)
    if rank_zero_only.rank > 0:
        return folder
    if folder.is_dir() and any(folder.iterdir()) and not (overwrite or resume):
        raise FileExistsError(
            f'{folder} has files of another run: continue it with --resume, replace it with '
            '--overwrite, or give another --work-dir'
        )
    folder.mkdir(parents=True, exist_ok=True)
    for unfinished in folder.glob('.*.ckpt.*.tmp'):
        unfinished.unlink()  # of a process killed while it wrote
    if overwrite and not resume:
        for name in CHECKPOINTS:
            (folder / name).unlink(missing_ok=True)
        for logs in (folder / 'tensorboard', *folder.glob('csv*')):
            shutil.rmtree(logs, ignore_errors=True)
    return folder
