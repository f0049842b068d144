"""Measuring the peak memory of a training step with each option that saves some."""

import tempfile
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

import lightning as L
from mmengine.config import Config
from mmengine.registry import DATA_SAMPLERS, init_default_scope
from torch.utils.data import Sampler

from bevformer_plugin.datasets import NuScenesTemporalDataset
from bevformer_plugin.errors import InputError
from bevformer_plugin.training import DetectorDataModule, DetectorModule, check_training, configured_precision

from .machine import describe_machine
from .peak_memory import PeakMemory, peak_memory
from .worlds import make_world

CHECKPOINTED: dict[str, object] = {'model.activation_checkpointing': ('img_backbone', 'encoder')}
BFLOAT16: dict[str, object] = {'optim_wrapper.type': 'AmpOptimWrapper', 'optim_wrapper.dtype': 'bfloat16'}
QUEUE = 'train_dataloader.dataset.queue_length'
OPTIONS: dict[str, dict[str, object]] = {
    'as configured': {},
    'queue_length=1': {QUEUE: 1},
    "activation_checkpointing=('encoder',)": {'model.activation_checkpointing': ('encoder',)},
    "activation_checkpointing=('img_backbone',)": {'model.activation_checkpointing': ('img_backbone',)},
    'both checkpointed': CHECKPOINTED,
    'bfloat16': BFLOAT16,
    'bfloat16, both checkpointed': {**BFLOAT16, **CHECKPOINTED},
}
GIB = 2**30


@DATA_SAMPLERS.register_module()
class LongestHistorySampler(Sampler[int]):
    """Gives the frames with the most frames of their scene before them first, whose items are the largest.

    Args:
        dataset: the frames.
        seed: not used, as nothing is drawn; every sampler is given one.
    """

    def __init__(self, dataset: NuScenesTemporalDataset, seed: int | None = None) -> None:
        before = {index: place for scene in dataset.scenes() for place, index in enumerate(scene)}
        self.order = sorted(before, key=lambda index: -before[index])

    def __iter__(self) -> Iterator[int]:
        return iter(self.order)

    def __len__(self) -> int:
        return len(self.order)


def _with_largest_items(cfg: Config) -> Config:
    """Change the training of a config with fixed frames so that all its items are of the largest kind.

    Those of BEVFormerV2 differ much in memory: in the number of frames that their scene has before them, and in the
    drawn size of their images.
    """
    dataset = cfg.train_dataloader.dataset
    if dataset.get('frame_offsets') is None:
        return cfg
    cfg = deepcopy(cfg)
    cfg.train_dataloader.sampler = {'type': 'LongestHistorySampler'}
    for transform in cfg.train_dataloader.dataset.pipeline:
        if transform['type'] == 'RandomResizeMultiView':
            transform['heights'] = [max(transform['heights'])]
    return cfg


def benchmark_memory(cfg: Config, data_root: str | None = None, steps: int = 2, only_configured: bool = False) -> dict:
    """Train a config for some steps with each option, each time in a fresh process on one device.

    A BEVFormerV2 is trained on its largest items: all frames are there, and images have the largest of their sizes.

    Args:
        cfg: as for training.
        data_root: dataroot with the config's info file; by default a small world of 1600 x 900 pixels is made in a
            temporary folder.
        steps: number of steps; the optimizer's state exists from the second one on.
        only_configured: measure the config as it is, without the options that save memory.

    Returns:
        ``settings`` and ``options``: per option its ``changes`` to the config, and ``peak`` and ``before`` of
        :class:`.peak_memory.PeakMemory` in bytes.

    Raises:
        InputError: for fewer than two steps, or a config that cannot train.
        ChildProcessError: if a process dies.
    """
    if steps < 2:
        raise InputError(f'steps must be at least 2, not {steps}: the first has no optimizer state yet')
    check_training(cfg)
    cfg = _with_largest_items(cfg)
    dataset = cfg.train_dataloader.dataset
    settings = {
        **describe_machine(),
        'image size': tuple(dataset.get('image_size') or ()),
        'queue length': dataset.get('queue_length') or len(dataset.get('frame_offsets') or ()) or None,
        'batch': cfg.train_dataloader.get('batch_size', 1),
    }
    with tempfile.TemporaryDirectory() as folder:
        root = data_root or make_world(Path(folder, 'world'))
        options = {}
        for name, changes in list(OPTIONS.items())[: 1 if only_configured else None]:
            if 'frame_offsets' in dataset and QUEUE in changes:
                continue  # its frames are no queue
            print(f'measuring: {name}', flush=True)
            changed = {**changes, 'train_dataloader.dataset.data_root': root}
            options[name] = {'changes': changes, **asdict(training_peak_memory(cfg, steps, changed))}
    return {'settings': settings, 'options': options}


def training_peak_memory(cfg: Config, steps: int, changes: dict[str, object] | None = None) -> PeakMemory:
    """Measure the peak memory of training steps of a config, with some of its settings changed."""
    changed = deepcopy(cfg)
    changed.merge_from_dict(changes or {})
    return peak_memory(_train, changed, steps)


def _train(cfg: Config, steps: int) -> None:
    """Take training steps without writing anything."""
    init_default_scope(cfg.get('default_scope', 'mmdet3d'))
    module, data = DetectorModule(cfg), DetectorDataModule(cfg, ('train',))
    trainer = L.Trainer(
        max_steps=steps,
        devices=1,
        precision=configured_precision(cfg),
        logger=False,
        enable_checkpointing=False,
        accumulate_grad_batches=cfg.optim_wrapper.get('accumulative_counts', 1),
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(module, datamodule=data)


def memory_table(report: dict) -> str:
    """Format the report of :func:`benchmark_memory` as a table for a terminal."""
    lines = [
        ', '.join(f'{key}: {value}' for key, value in report['settings'].items()),
        f'{"":<46}{"peak GiB":>10}{"work GiB":>10}{"ratio":>8}',
    ]
    first = None
    for name, option in report['options'].items():
        work = option['peak'] - option['before']
        first = work if first is None else first
        lines.append(f'{name:<46}{option["peak"] / GIB:>10.2f}{work / GIB:>10.2f}{work / first:>8.2f}')
    lines.append(
        'peak: of the process on a CPU, of the allocator on a GPU; work: without what was held before; '
        'ratio: of the work to that of the first row'
    )
    return '\n'.join(lines)
