"""The dataloaders of a config as a LightningDataModule."""

import multiprocessing.context
import os
import signal
import time
from collections.abc import Callable
from functools import cache, partial
from multiprocessing.context import BaseContext

import lightning as L
import torch
from lightning.pytorch.loops.progress import _ProcessedTracker
from mmdet3d.registry import DATA_SAMPLERS, DATASETS
from mmengine.config import Config
from mmengine.dist import get_world_size
from mmengine.runner import Runner
from torch.utils.data import DataLoader, Dataset

from bevformer_plugin.configuration import building
from bevformer_plugin.datasets import NuScenesTemporalDataset, ResumableSampler, SeededItems
from bevformer_plugin.datasets.described import DescribedDataset, read_in_full
from bevformer_plugin.errors import InputError

from .interrupts import SIGNAL_NAMES

SECONDS_AFTER_SIGTERM = 60


class DetectorDataModule(L.LightningDataModule):
    """Builds the datasets and dataloaders of an MMEngine-style config once, as MMEngine's Runner does.

    The constructor builds the datasets, before anything long starts. Dataloaders are built when Lightning asks for
    them, because their samplers need to know the number of processes. The state that checkpoints keep is the position
    in the training data.

    Args:
        cfg: the config.
        parts: which of 'train', 'val' and 'test' to build.
        seed: seed of samplers and workers.

    Raises:
        FileNotFoundError: if files of a dataset are missing.
        InputError: if a dataset cannot be built from the config, or has no length or ``metainfo``.
    """

    # With few scenes, a process may have none to evaluate, and thus a loader without batches.
    allow_zero_length_dataloader_with_multiple_devices = True

    def __init__(self, cfg: Config, parts: tuple[str, ...], seed: int = 0) -> None:
        super().__init__()
        self.cfg = cfg
        self.seed = seed
        self.datasets: dict[str, DescribedDataset] = {}
        for part in parts:
            section = f'{part}_dataloader.dataset'
            with building(section):
                dataset = _described(DATASETS.build(cfg[f'{part}_dataloader'].dataset), section)
                read_in_full(dataset)  # even with lazy_init, since its description is compared with the model
            self.datasets[part] = dataset
        self.loaders: dict[str, DataLoader] = {}

    def _loader(self, part: str) -> DataLoader:
        if part not in self.loaders:
            if get_world_size() > 1:
                _settle_before_forks()
            section = f'{part}_dataloader'
            dataset = self.datasets[part]
            items = SeededItems(dataset) if loses_seeds(self.cfg[section]) else dataset
            with building(section):
                loader = Runner.build_dataloader({**self.cfg[section], 'dataset': items}, seed=self.seed)
            if loader.num_workers and loader.multiprocessing_context is None:
                loader.multiprocessing_context = _worker_context()
            loader.worker_init_fn = partial(_start_worker, loader.worker_init_fn)
            self.datasets[part] = _described(loader.dataset, section)  # the builder has made a copy
            self.loaders[part] = loader
        return self.loaders[part]

    def _stream_loader(self, part: str) -> DataLoader:
        """Build a loader for evaluation, which gives a single None in a process that has no scene.

        Lightning does not run the hooks of a process without batches, so all others would wait for it in theirs.
        """
        loader = self._loader(part)
        return loader if len(loader) else DataLoader(_NothingToEvaluate(), batch_size=None)

    def transfer_batch_to_device(self, batch: dict, device: torch.device, dataloader_idx: int) -> dict:
        """Return the batch as it is, since the detector's data preprocessor moves it to the device."""
        return batch

    def train_dataloader(self) -> DataLoader:
        """Build the loader of ``cfg.train_dataloader``."""
        return self._loader('train')

    def val_dataloader(self) -> DataLoader:
        """Build the loader of ``cfg.val_dataloader``."""
        return self._stream_loader('val')

    def test_dataloader(self) -> DataLoader:
        """Build the loader of ``cfg.test_dataloader``."""
        return self._stream_loader('test')

    def on_exception(self, exception: BaseException) -> None:
        """Stop the workers of all dataloaders, since Lightning stops only those of the loader that is in use."""
        assert self.trainer is not None
        self.trainer.fit_loop.teardown()

    def state_dict(self) -> dict:
        """Return the number of whole epochs, and of batches of the next one, that were trained on."""
        assert self.trainer is not None
        loop = self.trainer.fit_loop
        epoch, batch = loop.epoch_progress.current, loop.epoch_loop.batch_progress.current
        assert isinstance(epoch, _ProcessedTracker) and isinstance(batch, _ProcessedTracker)
        between_epochs = epoch.started == epoch.processed
        return {'epoch': epoch.processed, 'batches': 0 if between_epochs else batch.processed}

    def load_state_dict(self, state_dict: dict) -> None:
        """Go on where the state was taken.

        The sampler is told the epoch here, because Lightning does so only after the workers have begun to load.

        Raises:
            InputError: if the sampler cannot go on within an epoch.
        """
        loader, epoch, batches = self._loader('train'), state_dict['epoch'], state_dict['batches']
        if not isinstance(loader.sampler, ResumableSampler):
            raise InputError(
                f'training cannot go on with a {type(loader.sampler).__name__}: '
                'set train_dataloader.sampler.type=ResumableSampler'
            )
        loader.sampler.go_on(epoch, batches * (loader.batch_size or 1))


class _NothingToEvaluate(Dataset):
    """A dataset with None as its only item."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, idx: int) -> None:
        return None


def loses_seeds(loader: dict) -> bool:
    """Tell whether a dataloader's sampler gives seeds with its indices and its dataset would not hand them on."""
    sampler = DATA_SAMPLERS.get(loader['sampler']['type']) if loader.get('sampler') else None
    dataset = DATASETS.get(loader['dataset']['type'])
    gives_seeds = isinstance(sampler, type) and issubclass(sampler, ResumableSampler)
    return gives_seeds and not (
        isinstance(dataset, type) and issubclass(dataset, NuScenesTemporalDataset | SeededItems)
    )


def _described(dataset: object, section: str) -> DescribedDataset:
    """Refuse a dataset without a length or a description of its data."""
    if not isinstance(dataset, DescribedDataset):
        raise InputError(f'{section} is a {type(dataset).__name__}, which has no length, items or metainfo')
    return dataset


@cache
def _settle_before_forks() -> None:
    """Wait a moment before workers are forked, so that the threads of a collective operation can end.

    Up to Python 3.12, a fork while another thread leaves the interpreter gives a child process that hangs.
    """
    os.register_at_fork(before=lambda: time.sleep(0.1))


class _SignalsHeldBack:
    """A worker that is started with its signals held back, since one that comes before its handlers would end it."""

    def start(self) -> None:
        """Start the worker; :func:`_start_worker` lets its signals through."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNAL_NAMES)
        try:
            super().start()  # type: ignore[misc]
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _ForkedWorker(_SignalsHeldBack, multiprocessing.context.ForkProcess):
    pass


class _SpawnedWorker(_SignalsHeldBack, multiprocessing.context.SpawnProcess):
    pass


class _ForkContext(multiprocessing.context.ForkContext):
    Process = _ForkedWorker


class _SpawnContext(multiprocessing.context.SpawnContext):
    Process = _SpawnedWorker


def _worker_context() -> BaseContext | None:
    """Return what starts workers as ``env_cfg.mp_cfg.mp_start_method`` says; None leaves it to PyTorch."""
    contexts = {'fork': _ForkContext, 'spawn': _SpawnContext}
    method = multiprocessing.get_start_method()
    return contexts[method]() if method in contexts else None


def _start_worker(worker_init_fn: Callable[[int], None] | None, worker_id: int) -> None:
    """Prepare a worker to ignore Ctrl-C and to outlive SIGTERM for a while.

    Workers receive these signals too, but the training process needs them to finish its step.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(SECONDS_AFTER_SIGTERM))
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNAL_NAMES)
    if worker_init_fn is not None:
        worker_init_fn(worker_id)
