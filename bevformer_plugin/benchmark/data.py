"""Measuring how many training samples are loaded per second, from image files to normalised tensors."""

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mmdet3d.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.utils.dl_utils import set_multi_processing
from torch import Tensor, nn
from torch.utils.data import DataLoader

from bevformer_plugin.configuration import building
from bevformer_plugin.datasets import NuScenesTemporalDataset
from bevformer_plugin.datasets.training_sampler import SeededIndex
from bevformer_plugin.errors import InputError
from bevformer_plugin.seeding import derived_seed, seeded_generators

from .machine import describe_machine
from .stock_pipeline import StockQueues
from .worlds import make_world

STOCK = 'stock transforms'
LARGEST_DIFFERENCE = 1.0  # mean absolute difference over all pixels, of 255 levels
COMPARED_SAMPLES = 6  # pixels are compared for so many samples


@dataclass(frozen=True)
class Version:
    """One of the ways from image files to tensors that are compared: a dataset and a preprocessor for its items."""

    dataset: NuScenesTemporalDataset | StockQueues
    preprocessor: nn.Module


def benchmark_data(
    cfg: Config, data_root: str | None = None, samples: int = 24, rounds: int = 5, workers: int = 2
) -> dict:
    """Compare a config's training pipeline with stock transforms on the same frames with the same random draws.

    There are four versions: mmdetection3d's transforms as its multi-view config composes them; the same, but resizing
    before the distortion; the config's pipeline on the exact path (``LoadMultiViewImages(to_float32=True)``); and the
    config's pipeline as it is. First their pixels and projections are compared. Then, in every round, one version
    after another loads all samples in worker processes and prepares them one by one on the CPU. All samples are full
    queues.

    Args:
        cfg: with ``train_dataloader.dataset`` and ``model.data_preprocessor``.
        data_root: dataroot with the config's info file; by default a small world of 1600 x 900 pixels is made in a
            temporary folder.
        samples: number of samples per round and version.
        rounds: number of measured rounds, which follow one to warm up.
        workers: number of processes that load.

    Returns:
        ``settings`` and ``versions``: per version ``samples_per_second`` (a value per round), ``ratio`` (median over
        the rounds of its rate divided by that of the stock transforms in the same round) and ``difference`` (mean
        absolute difference from the stock transforms' pixels, of 255 levels).

    Raises:
        FileNotFoundError: if ``data_root`` or its infos do not exist.
        InputError: for too few samples, rounds or workers, frames at fixed offsets, a dataset without ``image_size``
            or without full queues, or pixels or projections that differ from those of the stock transforms.
    """
    for name, value in (('samples', samples), ('rounds', rounds), ('workers', workers)):
        if value < 1:
            raise InputError(f'{name} must be at least 1, not {value}')
    _check_config(cfg)
    with building('env_cfg.mp_cfg'):
        set_multi_processing(**(cfg.get('env_cfg') or {}).get('mp_cfg', {}))
    with tempfile.TemporaryDirectory() as folder:
        ours, versions = _build_versions(cfg, data_root or make_world(Path(folder, 'world')))
        indices = _full_queues(ours, samples)
        differences = _differences(versions, indices[-COMPARED_SAMPLES:], cfg.train_dataloader.dataset.image_size)
        rates = _rates(versions, indices, rounds, workers)
    dataset = cfg.train_dataloader.dataset
    return {
        'settings': {
            **describe_machine(),
            'workers': workers,
            'image size': tuple(dataset.image_size),
            'queue length': ours.queue_length,
        },
        'versions': {
            name: {
                'samples_per_second': rates[name],
                'ratio': statistics.median(np.divide(rates[name], rates[STOCK]).tolist()),
                'difference': differences[name],
            }
            for name in versions
        },
    }


def data_table(report: dict) -> str:
    """Format the report of :func:`benchmark_data` as a table for a terminal."""
    lines = [
        ', '.join(f'{key}: {value}' for key, value in report['settings'].items()),
        f'{"":<34}{"samples/s":>10}{"min - max":>16}{"ratio":>8}{"difference":>12}',
    ]
    for name, version in report['versions'].items():
        rates = version['samples_per_second']
        spread = f'{min(rates):.2f} - {max(rates):.2f}'
        lines.append(
            f'{name:<34}{statistics.median(rates):>10.2f}{spread:>16}{version["ratio"]:>8.2f}'
            f'{version["difference"]:>12.3f}'
        )
    lines.append('samples/s and ratio: medians over the rounds; difference: mean absolute, of 255 levels')
    return '\n'.join(lines)


def _check_config(cfg: Config) -> None:
    """Refuse a config without the parts that are measured."""
    dataset = (cfg.get('train_dataloader') or {}).get('dataset')
    if not isinstance(dataset, dict) or dataset.get('type') != 'NuScenesTemporalDataset':
        raise InputError('train_dataloader.dataset has to be a NuScenesTemporalDataset to be measured here')
    offsets = dataset.get('frame_offsets')
    if offsets is not None:
        raise InputError(
            f'train_dataloader.dataset.frame_offsets={list(offsets)}: this benchmark loads queues of '
            'frames that follow each other, such as those of bevformer/bevformer_tiny'
        )
    if dataset.get('image_size') is None:
        raise InputError('train_dataloader.dataset has no image_size: set it, resizing is part of the comparison')
    if not isinstance(cfg.model.get('data_preprocessor'), dict):
        raise InputError('model.data_preprocessor is missing: it is part of what is measured')


def _build_versions(cfg: Config, data_root: str) -> tuple[NuScenesTemporalDataset, dict[str, Version]]:
    """Build the config's dataset and all versions, which load the same frames, including those without boxes."""
    config = {**cfg.train_dataloader.dataset, 'data_root': data_root, 'filter_empty_gt': False}
    exact_pipeline = [
        {**transform, 'to_float32': True} if transform['type'] == 'LoadMultiViewImages' else transform
        for transform in config['pipeline']
    ]
    with building('train_dataloader.dataset'):
        ours: NuScenesTemporalDataset = DATASETS.build(config)
    with building('model.data_preprocessor'):
        preprocessor = MODELS.build(cfg.model.data_preprocessor)
        stock_preprocessor = MODELS.build({**cfg.model.data_preprocessor, 'type': 'Det3DDataPreprocessor'})
    return ours, {
        STOCK: Version(StockQueues(ours, config['pipeline']), stock_preprocessor),
        'stock transforms, resized first': Version(
            StockQueues(ours, config['pipeline'], resize_first=True), stock_preprocessor
        ),
        'ours, exact': Version(DATASETS.build({**config, 'pipeline': exact_pipeline}), preprocessor),
        'ours': Version(ours, preprocessor),
    }


def _full_queues(dataset: NuScenesTemporalDataset, samples: int) -> list[SeededIndex]:
    """Choose indices of items with a full queue, cycling through the dataset."""
    full: list[SeededIndex] = []
    for number in range(max(len(dataset), 20 * samples)):
        index = SeededIndex(number % len(dataset), derived_seed(0, number))
        with seeded_generators(index.seed):
            if len(dataset.get_data_info(int(index))['history']) == dataset.queue_length - 1:
                full.append(index)
        if len(full) == samples:
            return full
    raise InputError(f'{dataset.data_root} has too few keyframes with {dataset.queue_length - 1} frames before them')


def _differences(
    versions: dict[str, Version], indices: list[SeededIndex], image_size: tuple[int, int]
) -> dict[str, float]:
    """Compute the mean absolute difference of each version from the stock transforms' pixels, of 255 levels.

    Raises:
        InputError: if a difference exceeds one level, or projections differ.
    """
    differences = {name: [] for name in versions}
    for index in indices:
        expected, expected_projection = _prepared(versions[STOCK], index, image_size)
        for name, version in versions.items():
            values, projection = _prepared(version, index, image_size)
            if not np.allclose(projection, expected_projection, rtol=1e-6):
                raise InputError(f'{name}: lidar2img of frame {int(index)} is not that of the {STOCK}')
            differences[name].append((values - expected).abs().mean().item())
    means = {name: statistics.mean(values) for name, values in differences.items()}
    for name, mean in means.items():
        if mean > LARGEST_DIFFERENCE:
            raise InputError(
                f'{name}: pixels differ by {mean:.2f} of 255 levels from those of the {STOCK}, more than '
                f'{LARGEST_DIFFERENCE}'
            )
    return means


def _prepared(version: Version, index: SeededIndex, image_size: tuple[int, int]) -> tuple[Tensor, np.ndarray]:
    """Load an item as pixels (T * N, 3, H, W) in levels, with the mean subtracted, and projections (N, 4, 4)."""
    batch = version.preprocessor(pseudo_collate([version.dataset[index]]))
    imgs, meta = batch['inputs']['imgs'], batch['data_samples'][0].metainfo
    width, height = image_size
    levels = imgs.reshape(-1, *imgs.shape[-3:])[..., :height, :width] * version.preprocessor.std
    return levels, np.stack(meta['lidar2img'] if 'lidar2img' in meta else meta['cam2img'])


def _rates(
    versions: dict[str, Version], indices: list[SeededIndex], rounds: int, workers: int
) -> dict[str, list[float]]:
    """Measure the samples per second of every round; versions take turns, so that all meet the same disturbances."""
    loaders = {
        name: DataLoader(
            version.dataset, sampler=indices, num_workers=workers, persistent_workers=True, collate_fn=pseudo_collate
        )
        for name, version in versions.items()
    }
    rates = {name: [] for name in versions}
    for _ in range(rounds + 1):
        for name, loader in loaders.items():
            begin = time.perf_counter()
            for batch in loader:
                versions[name].preprocessor(batch)
            rates[name].append(len(indices) / (time.perf_counter() - begin))
    return {name: of_rounds[1:] for name, of_rounds in rates.items()}  # the first round started the workers
