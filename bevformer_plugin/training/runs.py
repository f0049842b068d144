"""Whole runs under PyTorch Lightning: training and testing."""

import errno
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from mmengine.config import Config
from mmengine.logging import MMLogger, print_log
from mmengine.runner import set_random_seed
from mmengine.utils.dl_utils import set_multi_processing
from torch import nn

from bevformer_plugin.configuration import building
from bevformer_plugin.configuration.unread_settings import refuse_settings_of_the_runner
from bevformer_plugin.deployment import (
    ONNX_ENDING,
    OnnxDetector,
    OptimizedDetector,
    check_exported,
    keep_freed_memory,
    optimize_for_inference,
)
from bevformer_plugin.errors import InputError
from bevformer_plugin.models import BEVFormer
from bevformer_plugin.weights import check_checkpoint, check_resumption, initialize, load_content, read_checkpoint

from .callbacks import BestCheckpoint, EpochReport, LastCheckpoint, LogEveryEpoch, ValidationPlan
from .checkpoints import (
    LAST,
    AtomicCheckpointIO,
    best_checkpoint_name,
    check_resumable,
    checkpoint_to_resume,
    refuse_mismatch,
)
from .config import best_score, drop_replaced_maps
from .consistency import check_consistency, check_first_items, check_run, log_remarks, trained_names
from .curves import Curves, stop_quietly
from .data_module import DetectorDataModule
from .detector_module import DetectorModule
from .hardware import Hardware, check_norms, check_precision, check_strategy, loss_scale_plugins, run_precision
from .initial_weights import check_initial_weights
from .pretrained import check_pretrained
from .run_settings import batches_per_epoch, chosen_seed, run_settings
from .sharding import ShardedDetectorModule
from .start import RunStart
from .work_dir import check_work_dir, occupied

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk or the quota is full, or the file has its largest size
# Lightning warnings that do not apply here: runs do resume, all processes have the same scores, and frozen stages are
# meant to be in eval mode. The last one is about Lightning's own code.
EXPECTED_WARNINGS = (
    '.*your dataloader is not resumable',
    '.*sync_dist=True.* when logging on epoch level',
    '.*in eval mode at the start of training',
    '.*LeafSpec.* is deprecated',
)


# What tools/test.py --optimize takes; None takes bfloat16 where the device computes with it.
INFERENCE_TYPES = {'auto': None, 'float32': torch.float32, 'bfloat16': torch.bfloat16}


def train_with_lightning(cfg: Config, start: RunStart, hardware: Hardware) -> None:
    """Train a config under Lightning, and write checkpoints, logs and the config to the work dir.

    Everything that can be checked is checked before an earlier run in the work dir is touched.

    Raises:
        FileExistsError: if the work dir belongs to another run.
        FileNotFoundError: if there is nothing to resume, or files of the data are missing.
        OSError: if the work dir cannot be written to.
        InputError: if config, data, hardware and checkpoint do not belong together.
    """
    check_work_dir(start)
    refuse_settings_of_the_runner(cfg)
    check_precision(cfg, hardware)
    check_strategy(cfg, hardware.strategy)
    _prepare_process(cfg)
    checkpoint, content = checkpoint_to_resume(start.work_dir, start.resume)
    seed = chosen_seed(start.seed, content)
    data = DetectorDataModule(cfg, ('train', 'val'), seed)
    load_from = cfg.get('load_from') if checkpoint is None else None
    remarks = check_run(cfg, data.datasets, load_from)
    trainer = _trainer(cfg, start, hardware)
    settings = run_settings(cfg, trainer.world_size, run_precision(cfg, hardware), seed, len(data.datasets['train']))
    place, resumption = None, ''
    if checkpoint is not None:
        remarks += check_resumption(cfg, data.datasets['train'], checkpoint, content)
        max_epochs = cfg.train_cfg.max_epochs
        place, resumption = check_resumable(content, checkpoint, settings, max_epochs, start.restart_schedule)
    set_random_seed(seed)
    module_class = ShardedDetectorModule if hardware.strategy == 'fsdp' else DetectorModule
    module = module_class(cfg, seed, settings, place, start.restart_schedule)
    check_norms(module.detector, trainer.strategy.root_device, trainer.world_size)
    check_initial_weights(module.detector, cfg.get('load_from'), resuming=checkpoint is not None)
    if checkpoint is None:
        check_pretrained(module.detector)
    else:
        refuse_mismatch(content['state_dict'], module.detector, checkpoint)
    del content
    remarks += module.check_optimization(batches_per_epoch(settings))
    check_first_items(data.datasets)
    work_dir = start.work_dir
    with occupied(start, Path(cfg.filename).name), _explained_full_disk(work_dir):
        _start_log(work_dir, append=checkpoint is not None)
        log_remarks(remarks)
        if resumption:
            print_log(resumption, logger='current')
        module.detector.init_weights()
        if load_from:
            initialize(module.detector, load_from, **trained_names(data.datasets['train']))
        if rank_zero_only.rank == 0:
            cfg.dump(str(work_dir / 'config.py'))
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    best = trainer.checkpoint_callback
    score = best.best_model_score if isinstance(best, BestCheckpoint) else None
    name, path = best_score(cfg).rpartition('/')[2], work_dir / best_checkpoint_name(best_score(cfg))
    print_log(
        f'last checkpoint: {work_dir / LAST}'
        + (f'\nbest checkpoint: {path} ({name} {float(score):.4f})' if score is not None else ''),
        logger='current',
    )


@contextmanager
def _explained_full_disk(work_dir: Path) -> Iterator[None]:
    """Add the folder and the remedy to errors of a full disk that do not name a file."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE or error.filename is not None:
            raise
        raise OSError(
            f'a file in {work_dir} cannot be written ({error.strerror}); its checkpoints are whole: free space, then '
            'go on with --resume'
        ) from error


def _prepare_process(cfg: Config) -> None:
    """Prepare multiprocessing as the Runner does, silence expected warnings, and let one process log."""
    with building('env_cfg.mp_cfg'):
        set_multi_processing(**(cfg.get('env_cfg') or {}).get('mp_cfg', {}))
    for message in EXPECTED_WARNINGS:
        warnings.filterwarnings('ignore', message=message)
    if rank_zero_only.rank:
        MMLogger.get_instance('bevformer_plugin', log_level='ERROR')


def _start_log(work_dir: Path, append: bool) -> None:
    """Log to the console and to ``train.log`` in the first of several processes."""
    if not rank_zero_only.rank:
        logger = MMLogger.get_instance(
            'bevformer_plugin', log_file=str(work_dir / 'train.log'), file_mode='a' if append else 'w'
        )
        stop_quietly(logger)


def _trainer(cfg: Config, start: RunStart, hardware: Hardware) -> L.Trainer:
    """Build Lightning's trainer as the config describes it.

    Raises:
        InputError: if the machine does not have the devices.
    """
    hooks = cfg.get('default_hooks') or {}
    work_dir = start.work_dir
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
                Curves(TensorBoardLogger(work_dir, name='', version='tensorboard')),
                Curves(CSVLogger(work_dir, name='', version=_csv_version(work_dir, start.resume is not None))),
            ],
            callbacks=[
                BestCheckpoint(work_dir, best_score(cfg)),
                last,
                plan,
                LogEveryEpoch(),
                EpochReport(),
                *progress_bar(),
            ],
            enable_progress_bar=sys.stderr.isatty(),
            plugins=[AtomicCheckpointIO(), *scaled],
        )


def _last_checkpoint(path: Path, hook: dict, max_epochs: int) -> LastCheckpoint:
    """Build the callback that writes as often as MMEngine's ``CheckpointHook``; below 1 it writes only at the end."""
    interval = hook.get('interval', 1)
    if hook.get('by_epoch', True):
        return LastCheckpoint(path, epochs=interval if interval > 0 else max_epochs)
    return LastCheckpoint(path, steps=interval if interval > 0 else None)


def _csv_version(work_dir: Path, resumed: bool) -> str:
    """Choose a new folder for the table of a resumed run, since Lightning's logger deletes an existing one."""
    return f'csv_resumed_{len(list(work_dir.glob("csv*")))}' if resumed else 'csv'


@contextmanager
def _device_errors() -> Iterator[None]:
    """Turn Lightning's errors about devices that the machine lacks into an InputError that names the remedy."""
    try:
        yield
    except (MisconfigurationException, ValueError) as error:  # a ValueError for an unknown accelerator
        raise InputError(f'{error} Choose with --devices and --accelerator.') from error


def progress_bar() -> list[Callback]:
    """Build a progress bar on a terminal; a log file has the line per epoch instead, so the list is empty."""
    return [TQDMProgressBar()] if sys.stderr.isatty() else []


def test_with_lightning(cfg: Config, checkpoint: str, hardware: Hardware, optimize: str | None = None) -> None:
    """Stream over the test dataloader, and let ``cfg.test_evaluator`` write and score the results.

    Args:
        cfg: the config.
        checkpoint: file with the weights, or an ONNX file of ``tools/export.py``, which runs in onnxruntime.
        hardware: where to run.
        optimize: a key of :data:`INFERENCE_TYPES` to test the detector after :func:`optimize_for_inference`; None
            tests it as it is.

    Raises:
        FileNotFoundError: if the checkpoint or files of the data are missing.
        InputError: if config, data, hardware and checkpoint do not belong together.
    """
    _prepare_process(cfg)
    data = DetectorDataModule(cfg, ('test',))
    dataset = data.datasets['test']
    remarks = check_consistency(cfg, data.datasets)
    module = DetectorModule(cfg)
    if Path(checkpoint).suffix == ONNX_ENDING:
        if optimize is not None:
            raise InputError(f'--optimize is for checkpoints, and {checkpoint} is an exported file: leave it out')
        module.detector = OnnxDetector(checkpoint)
        log_remarks(remarks + check_exported(cfg, dataset, checkpoint, module.detector.network.description))
    else:
        content = read_checkpoint(checkpoint)
        log_remarks(remarks + check_checkpoint(cfg, dataset, checkpoint, content))
        load_content(module.detector, content, checkpoint, dataset.metainfo.get('classes'))
        del content
    check_first_items(data.datasets)
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
    if optimize is not None:
        module.detector = _optimized(module.detector.to(trainer.strategy.root_device), INFERENCE_TYPES[optimize])
    rank_zero_only(drop_replaced_maps)(cfg)
    trainer.test(module, datamodule=data, verbose=False)


def _optimized(detector: nn.Module, dtype: torch.dtype | None) -> OptimizedDetector:
    """The detector as :func:`optimize_for_inference` returns it."""
    if not isinstance(detector, BEVFormer):
        raise InputError(f'--optimize is for a BEVFormer, model.type is {type(detector).__name__}: leave it out')
    return optimize_for_inference(detector, dtype)
