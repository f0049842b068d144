"""Whole runs: training under Lightning or MMEngine, and testing."""
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MMLogger, print_log
from mmengine.runner import Runner, set_random_seed

from .callbacks import EpochReport
from .checkpoints import BEST, LAST, AtomicCheckpointIO, load_weights
from .data_module import DetectorDataModule
from .detector_module import DetectorModule


def train_with_lightning(cfg: Config, work_dir: Path, seed: int, devices: int | str = 'auto',
                         accelerator: str = 'auto', precision: str = '32-true',
                         resume_from: str | None = None) -> None:
    """Train a config under Lightning; checkpoints, logs and the config end up in ``work_dir``."""
    MMLogger.get_instance('bevformer_plugin', log_file=str(work_dir / 'train.log'))
    set_random_seed(seed)
    module = DetectorModule(cfg, seed)
    module.detector.init_weights()
    if cfg.get('load_from'):
        load_weights(module.detector, cfg.load_from)
    data = DetectorDataModule(cfg, seed)
    data.train_dataloader(), data.val_dataloader()  # a missing file should not cost an epoch
    cfg.dump(str(work_dir / 'config.py'))
    clip = cfg.optim_wrapper.get('clip_grad') or {}
    last = ModelCheckpoint(work_dir, filename=Path(LAST).stem, enable_version_counter=False)
    best = ModelCheckpoint(work_dir, filename=Path(BEST).stem, monitor='nuscenes/NDS', mode='max',
                           enable_version_counter=False)
    with _device_errors():
        trainer = L.Trainer(
            accelerator=accelerator, devices=devices, precision=precision, max_epochs=cfg.train_cfg.max_epochs,
            check_val_every_n_epoch=min(cfg.train_cfg.get('val_interval', 1), cfg.train_cfg.max_epochs),
            num_sanity_val_steps=0, gradient_clip_val=clip.get('max_norm'),
            accumulate_grad_batches=cfg.optim_wrapper.get('accumulative_counts', 1),
            use_distributed_sampler=False, default_root_dir=work_dir,
            log_every_n_steps=cfg.get('default_hooks', {}).get('logger', {}).get('interval', 10),
            logger=[TensorBoardLogger(work_dir, name='', version='tensorboard'),
                    CSVLogger(work_dir, name='', version='csv')],
            callbacks=[last, best, EpochReport(), *progress_bar()], enable_progress_bar=sys.stderr.isatty(),
            plugins=[AtomicCheckpointIO()])
    trainer.fit(module, datamodule=data, ckpt_path=resume_from, weights_only=True)
    score = best.best_model_score
    print_log(f"last checkpoint: {work_dir / LAST}" +
              (f'\nbest checkpoint: {work_dir / BEST} (NDS {float(score):.4f})' if score is not None else ''),
              logger='current')


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


def test_with_lightning(cfg: Config, checkpoint: str, devices: int | str = 'auto', accelerator: str = 'auto') -> None:
    """Stream over the test dataloader and let ``cfg.test_evaluator`` write and score the results."""
    module = DetectorModule(cfg)
    load_weights(module.detector, checkpoint)
    with _device_errors():
        trainer = L.Trainer(accelerator=accelerator, devices=devices, logger=False, enable_checkpointing=False,
                            use_distributed_sampler=False, enable_model_summary=False, callbacks=progress_bar(),
                            enable_progress_bar=sys.stderr.isatty())
    trainer.test(module, datamodule=DetectorDataModule(cfg), verbose=False)


class SeedAtStart(Hook):
    """Seeds where :class:`DetectorModule` does, so that both engines take the same first step."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Seed before the very first step."""
        if runner.iter == 0:
            set_random_seed(self.seed + runner.rank)


def train_with_mmengine(cfg: Config, work_dir: Path, seed: int, resume_from: str | None = None) -> None:
    """Train a config under MMEngine's Runner."""
    cfg.work_dir = str(work_dir)
    cfg.randomness = dict(seed=seed)
    if resume_from is not None:
        cfg.load_from, cfg.resume = resume_from, True
    runner = Runner.from_cfg(cfg)
    runner.register_hook(SeedAtStart(seed))
    runner.train()
