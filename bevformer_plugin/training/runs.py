"""Whole runs: training under Lightning or MMEngine, and testing."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MMLogger, print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner, find_latest_checkpoint, set_random_seed
from mmengine.utils.dl_utils import set_multi_processing

from bevformer_plugin.checkpoint import (
    SAFE_GLOBALS,
    check_checkpoint,
    check_resumption,
    initialize,
    load_content,
    read_checkpoint,
)
from bevformer_plugin.datasets.training_sampler import derived_seed, seed_generators
from bevformer_plugin.models import keep_freed_memory

from .callbacks import EpochReport, LastCheckpoint, ValidationPlan
from .checkpoints import BEST, LAST, AtomicCheckpointIO, checkpoint_to_resume
from .consistency import check_consistency, check_run, log_remarks, trained_names
from .data_module import DetectorDataModule
from .detector_module import DetectorModule
from .hardware import (
    Hardware,
    check_precision,
    check_precision_under_mmengine,
    check_strategy,
    loss_scale_plugins,
    run_precision,
)
from .initial_weights import check_initial_weights
from .learning_rate import scale_under_mmengine
from .sharding import ShardedDetectorModule
from .unread_settings import refuse_settings_of_the_runner

# What Lightning warns of and is meant so: resuming, scores that all processes have, frozen stages; and its own habits.
HANDLED = (
    '.*your dataloader is not resumable',
    '.*sync_dist=True.* when logging on epoch level',
    '.*in eval mode at the start of training',
    '.*LeafSpec.* is deprecated',
)


def train_with_lightning(
    cfg: Config, work_dir: Path, seed: int, hardware: Hardware, resume: str | None = None
) -> None:
    """Train a config under Lightning; checkpoints, logs and the config end up in ``work_dir``.

    ``resume`` is a checkpoint of such a run, or 'newest'.
    """
    refuse_settings_of_the_runner(cfg)
    check_precision(cfg, hardware)
    check_strategy(cfg, hardware.strategy)
    _prepare_process(cfg)
    data = DetectorDataModule(cfg, ('train', 'val'), seed)
    start = cfg.get('load_from') if resume is None else None
    remarks = check_run(cfg, data.datasets, start)
    set_random_seed(seed)
    module = (ShardedDetectorModule if hardware.strategy == 'fsdp' else DetectorModule)(cfg, seed)
    check_initial_weights(module.detector, cfg.get('load_from'), resuming=resume is not None)
    _start_log(work_dir, append=resume is not None)
    log_remarks(remarks)
    module.detector.init_weights()
    if start:
        initialize(module.detector, start, **trained_names(data.datasets['train']))
    resume_from = None if resume is None else checkpoint_to_resume(work_dir, resume)
    if resume_from is not None:
        log_remarks(check_resumption(cfg, data.datasets['train'], resume_from, read_checkpoint(resume_from)))
    if rank_zero_only.rank == 0:
        cfg.dump(str(work_dir / 'config.py'))
    trainer = _trainer(cfg, work_dir, hardware, resume is not None)
    trainer.fit(module, datamodule=data, ckpt_path=resume_from, weights_only=True)
    score = trainer.checkpoint_callback.best_model_score
    print_log(
        f'last checkpoint: {work_dir / LAST}'
        + (f'\nbest checkpoint: {work_dir / BEST} (NDS {float(score):.4f})' if score is not None else ''),
        logger='current',
    )


def _prepare_process(cfg: Config) -> None:
    """Set up workers as the Runner does; only the first of several processes speaks, and Lightning does not warn of
    what is taken care of here.
    """
    set_multi_processing(**(cfg.get('env_cfg') or {}).get('mp_cfg', {}))
    for handled in HANDLED:
        warnings.filterwarnings('ignore', message=handled)
    if rank_zero_only.rank:
        MMLogger.get_instance('bevformer_plugin', log_level='ERROR')


def _start_log(work_dir: Path, append: bool) -> None:
    """Log to the console and to ``train.log``."""
    if not rank_zero_only.rank:
        MMLogger.get_instance(
            'bevformer_plugin', log_file=str(work_dir / 'train.log'), file_mode='a' if append else 'w'
        )


def _trainer(cfg: Config, work_dir: Path, hardware: Hardware, resumed: bool) -> L.Trainer:
    """Lightning's trainer as the config wants it.

    Raises:
        ValueError: if there are no such devices.
    """
    hooks = cfg.get('default_hooks') or {}
    best = ModelCheckpoint(
        work_dir,
        filename=Path(BEST).stem,
        monitor='nuscenes/NDS',
        mode='max',
        enable_version_counter=False,
        save_on_train_epoch_end=False,
    )
    last = _last_checkpoint(work_dir / LAST, hooks.get('checkpoint') or {}, cfg.train_cfg.max_epochs)
    plan = ValidationPlan(cfg.train_cfg.get('val_interval', 1), cfg.train_cfg.get('val_begin', 1))
    scaled = loss_scale_plugins(cfg, hardware)
    with _device_errors():
        return L.Trainer(
            **hardware.trainer_arguments(),
            precision=None if scaled else run_precision(cfg, hardware),
            max_epochs=cfg.train_cfg.max_epochs,
            num_sanity_val_steps=0,
            accumulate_grad_batches=cfg.optim_wrapper.get('accumulative_counts', 1),
            use_distributed_sampler=False,
            default_root_dir=work_dir,
            log_every_n_steps=(hooks.get('logger') or {}).get('interval', 10),
            logger=[
                TensorBoardLogger(work_dir, name='', version='tensorboard'),
                CSVLogger(work_dir, name='', version=_csv_version(work_dir, resumed)),
            ],
            callbacks=[best, last, plan, EpochReport(), *progress_bar()],
            enable_progress_bar=sys.stderr.isatty(),
            plugins=[AtomicCheckpointIO(), *scaled],
        )


def _last_checkpoint(path: Path, hook: dict, max_epochs: int) -> LastCheckpoint:
    """Written as often as MMEngine's ``CheckpointHook`` would; intervals below 1 mean never before the end."""
    interval = hook.get('interval', 1)
    if hook.get('by_epoch', True):
        return LastCheckpoint(path, epochs=interval if interval > 0 else max_epochs)
    return LastCheckpoint(path, steps=interval if interval > 0 else None)


def _csv_version(work_dir: Path, resumed: bool) -> str:
    """A folder for this run's table, since Lightning's logger deletes one that is there."""
    return f'csv_resumed_{len(list(work_dir.glob("csv*")))}' if resumed else 'csv'


@contextmanager
def _device_errors() -> Iterator[None]:
    """Turn Lightning's complaint about devices that are not there into a ValueError that names the remedy."""
    try:
        yield
    except MisconfigurationException as error:
        raise ValueError(f'{error} Choose with --devices and --accelerator.') from error


def progress_bar() -> list[TQDMProgressBar]:
    """A bar with loss and time left on a terminal; in a log file the line per epoch is enough."""
    return [TQDMProgressBar()] if sys.stderr.isatty() else []


def test_with_lightning(cfg: Config, checkpoint: str, hardware: Hardware) -> None:
    """Stream over the test dataloader and let ``cfg.test_evaluator`` write and score the results."""
    _prepare_process(cfg)
    data = DetectorDataModule(cfg, ('test',))
    dataset = data.datasets['test']
    remarks = check_consistency(cfg, data.datasets)
    content = read_checkpoint(checkpoint)
    log_remarks(remarks + check_checkpoint(cfg, dataset, checkpoint, content))
    module = DetectorModule(cfg)
    load_content(module.detector, content, checkpoint, dataset.metainfo['classes'])
    del content
    with _device_errors():
        trainer = L.Trainer(
            **hardware.trainer_arguments(),
            logger=False,
            enable_checkpointing=False,
            use_distributed_sampler=False,
            enable_model_summary=False,
            callbacks=progress_bar(),
            enable_progress_bar=sys.stderr.isatty(),
        )
    if trainer.strategy.root_device.type == 'cpu':
        keep_freed_memory()
    trainer.test(module, datamodule=data, verbose=False)


class SeedSteps(Hook):
    """Seeds every step as :class:`DetectorModule` does, so that both engines take the same steps."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Seed one step."""
        seed_generators(derived_seed(self.seed, runner.epoch, batch_idx, runner.rank))


class Initialize(Hook):
    """Starts from a file as training under Lightning does; the Runner itself would load what happens to fit."""

    def __init__(self, path: str, names: dict[str, list[str]]) -> None:
        self.path = path
        self.names = names

    def before_run(self, runner: Runner) -> None:
        """Load after the initialisation of the weights, before the first step."""
        initialize(runner.model.module if is_model_wrapper(runner.model) else runner.model, self.path, **self.names)


def train_with_mmengine(cfg: Config, work_dir: Path, seed: int, resume: str | None = None) -> None:
    """Train a config under MMEngine's Runner; ``resume`` is one of its checkpoints, or 'newest'.

    Raises:
        ValueError: if several processes were started that would not know of each other.
    """
    processes = int(os.environ.get('WORLD_SIZE', 1))
    if processes > 1 and cfg.get('launcher', 'none') == 'none':
        raise ValueError(
            f"{processes} processes were started, and the config's launcher is 'none': each would train "
            'on its own. --cfg-options launcher=pytorch joins them on GPUs, Lightning anywhere'
        )
    data = DetectorDataModule(cfg, ('train', 'val'), seed)
    start = cfg.get('load_from') if resume is None else None
    remarks = check_run(cfg, data.datasets, start)
    check_precision_under_mmengine(cfg)
    scale_under_mmengine(cfg, processes)
    cfg.work_dir = str(work_dir)
    cfg.randomness = dict(seed=seed)
    if resume is not None:
        # Without a file the Runner looks for its newest one.
        cfg.load_from, cfg.resume = None if resume == 'newest' else resume, True
        newest = find_latest_checkpoint(str(work_dir)) if resume == 'newest' else resume
        if newest:
            remarks += check_resumption(cfg, data.datasets['train'], newest, read_checkpoint(newest))
    else:
        cfg.load_from = None
    runner = Runner.from_cfg(cfg)
    check_initial_weights(runner.model, start, resuming=resume is not None)
    log_remarks(remarks)
    runner.register_hook(SeedSteps(seed))
    if start:
        runner.register_hook(Initialize(start, trained_names(data.datasets['train'])))
    with torch.serialization.safe_globals(SAFE_GLOBALS):  # MMEngine's checkpoints hold more than tensors
        runner.train()
