"""The config's dataloaders for Lightning."""

import os
import signal
import time
from functools import cache, partial

import lightning as L
import torch
from mmdet3d.registry import DATASETS
from mmengine.config import Config
from mmengine.dist import get_world_size
from mmengine.runner import Runner
from torch.utils.data import DataLoader, Dataset

from bevformer_plugin.configuration import building
from bevformer_plugin.datasets import ResumableSampler
from bevformer_plugin.errors import InputError

SECONDS_AFTER_SIGTERM = 60


class DetectorDataModule(L.LightningDataModule):
    """Builds datasets and dataloaders of an MMEngine-style config once, as MMEngine's Runner does.

    Datasets are built here, before anything long starts; dataloaders when Lightning asks for them, because their
    samplers need to know the processes. Its state is the position in the training data.

    Args:
        cfg: the config.
        parts: of 'train', 'val' and 'test' those that are needed.
        seed: of samplers and workers.
    """

    # A process may have no scene to evaluate.
    allow_zero_length_dataloader_with_multiple_devices = True

    def __init__(self, cfg: Config, parts: tuple[str, ...], seed: int = 0) -> None:
        super().__init__()
        self.cfg = cfg
        self.seed = seed
        self.datasets: dict[str, Dataset] = {}
        for part in parts:
            with building(f'{part}_dataloader.dataset'):
                self.datasets[part] = DATASETS.build(cfg[f'{part}_dataloader'].dataset)
        self.loaders: dict[str, DataLoader] = {}

    def _loader(self, part: str) -> DataLoader:
        if part not in self.loaders:
            if get_world_size() > 1:
                _settle_before_forks()
            loader = Runner.build_dataloader(
                {**self.cfg[f'{part}_dataloader'], 'dataset': self.datasets[part]}, seed=self.seed
            )
            loader.worker_init_fn = partial(_start_worker, loader.worker_init_fn)
            self.datasets[part], self.loaders[part] = loader.dataset, loader  # the builder has made a copy
        return self.loaders[part]

    def _stream_loader(self, part: str) -> DataLoader:
        """A loader for evaluation; where this process has no scene, one that gives None, once.

        Lightning leaves out the hooks of a process without batches, and all others would wait for it in theirs.
        """
        loader = self._loader(part)
        return loader if len(loader) else DataLoader([None], batch_size=None)

    def transfer_batch_to_device(self, batch: dict, device: torch.device, dataloader_idx: int) -> dict:
        """Leave the batch to the detector's data preprocessor."""
        return batch

    def train_dataloader(self) -> DataLoader:
        """``cfg.train_dataloader``."""
        return self._loader('train')

    def val_dataloader(self) -> DataLoader:
        """``cfg.val_dataloader``."""
        return self._stream_loader('val')

    def test_dataloader(self) -> DataLoader:
        """``cfg.test_dataloader``."""
        return self._stream_loader('test')

    def on_exception(self, exception: BaseException) -> None:
        """Send the workers home; Lightning does so for the dataloader in use alone, the others would be waited for."""
        self.trainer.fit_loop.teardown()

    def state_dict(self) -> dict:
        """Epoch, and batches of it that were trained on."""
        loop = self.trainer.fit_loop
        epoch = loop.epoch_progress.current
        between_epochs = epoch.started == epoch.processed
        return {
            'epoch': epoch.processed,
            'batches': 0 if between_epochs else loop.epoch_loop.batch_progress.current.processed,
        }

    def load_state_dict(self, state_dict: dict) -> None:
        """Go on where the state was taken. Lightning sets the epoch only after workers have begun with the first.

        Raises:
            InputError: if the sampler cannot go on.
        """
        loader, epoch, batches = self._loader('train'), state_dict['epoch'], state_dict['batches']
        if not isinstance(loader.sampler, ResumableSampler):
            raise InputError(
                f'training cannot go on with a {type(loader.sampler).__name__}: '
                'set train_dataloader.sampler.type=ResumableSampler'
            )
        loader.sampler.go_on(epoch, batches * loader.batch_size)


@cache
def _settle_before_forks() -> None:
    """Let the threads of a collective end before workers are forked.

    Until Python 3.12 a fork in the moment in which another thread leaves Python gives a child that hangs.
    """
    os.register_at_fork(before=lambda: time.sleep(0.1))


def _start_worker(worker_init_fn: partial, worker_id: int) -> None:
    """Outlive SIGTERM for a while and ignore Ctrl-C: workers get them too, but a step has to be finished with them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(SECONDS_AFTER_SIGTERM))
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    worker_init_fn(worker_id)
