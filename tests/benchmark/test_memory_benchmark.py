"""Peak memory: of a process that is known, and of a training step."""

import os

import pytest
import torch

from bevformer_plugin.benchmark.memory import OPTIONS, LongestHistorySampler, benchmark_memory, memory_table
from bevformer_plugin.benchmark.peak_memory import peak_memory
from tests.models.v2_world import dataset_of, shrunk_config

MIB = 2**20


def hold(mebibytes: int) -> None:
    torch.ones(mebibytes, MIB, dtype=torch.uint8)


def test_what_is_held_is_what_is_measured():
    filled = torch.ones(300, MIB, dtype=torch.uint8)  # here, which must not count there
    for mebibytes in (100, 400):
        found = peak_memory(hold, mebibytes)
        assert (found.peak - found.before) / MIB == pytest.approx(mebibytes, abs=25)
    del filled


def test_a_process_that_dies_is_reported():
    with pytest.raises(ChildProcessError, match='too little memory'):
        peak_memory(os._exit, 1)


@pytest.fixture
def cfg(load_on_synthetic_world):
    return load_on_synthetic_world('bevformer_nano', image_size=(640, 360))


@pytest.mark.slow
def test_options_are_measured_beside_each_other(cfg, monkeypatch):
    """What checkpointing saves is counted in tests/models: the memory of a process varies by some 30 MiB by chance."""
    chosen = {name: OPTIONS[name] for name in ('as configured', 'both checkpointed')}
    monkeypatch.setattr('bevformer_plugin.benchmark.memory.OPTIONS', chosen)
    report = benchmark_memory(cfg, cfg.train_dataloader.dataset.data_root)
    assert {name: option['changes'] for name, option in report['options'].items()} == chosen
    works = [option['peak'] - option['before'] for option in report['options'].values()]
    assert min(works) > 2**27
    assert f'{works[1] / works[0]:.2f}' in memory_table(report)


def test_items_with_the_longest_history_come_first(synthetic_root, info_files):
    """Frame positions of the two training scenes, each of six keyframes."""
    cfg = shrunk_config('t2', [-3, -1, 0])
    dataset = dataset_of(cfg, 'train', synthetic_root, info_files['mini_train'], pipeline=[])
    sampler = LongestHistorySampler(dataset)
    places = [dataset.get_data_info(index)['frame_idx'] for index in sampler]
    assert places == sorted(places, reverse=True) and places[:3] == [5, 5, 4] and len(sampler) == len(dataset) == 12


@pytest.mark.slow
def test_the_config_alone_is_measured_on_its_largest_items(synthetic_root, info_files):
    cfg = shrunk_config('t2', [-3, -1, 0])
    cfg.train_dataloader.dataset.ann_file = str(info_files['mini_train'])
    cfg.train_dataloader.dataset.image_size = (200, 80)
    cfg.train_dataloader.num_workers, cfg.train_dataloader.persistent_workers = 0, False
    report = benchmark_memory(cfg, str(synthetic_root), only_configured=True)
    assert list(report['options']) == ['as configured'] and report['settings']['queue length'] == 3
    assert report['options']['as configured']['peak'] > report['options']['as configured']['before'] > 2**27


def test_one_step_is_refused(cfg):
    with pytest.raises(ValueError, match='steps must be at least 2, not 1'):
        benchmark_memory(cfg, steps=1)
