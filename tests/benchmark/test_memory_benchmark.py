"""Peak memory: of a process that is known, and of a training step."""

import os
from pathlib import Path

import pytest
import torch

from bevformer_plugin.benchmark.memory import OPTIONS, benchmark_memory, memory_table
from bevformer_plugin.benchmark.peak_memory import peak_memory
from bevformer_plugin.configuration import load_config

CONFIGS = Path(__file__).resolve().parents[2] / 'configs' / 'bevformer'
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
def cfg(info_files, synthetic_root):
    return load_config(
        str(CONFIGS / 'bevformer_nano.py'),
        {
            'train_dataloader.dataset.ann_file': str(info_files['mini_train']),
            'train_dataloader.dataset.data_root': str(synthetic_root),
            'train_dataloader.dataset.image_size': (640, 360),
        },
    )


@pytest.mark.slow
def test_checkpointing_saves_memory(cfg, monkeypatch):
    chosen = {name: OPTIONS[name] for name in ('as configured', 'both checkpointed')}
    monkeypatch.setattr('bevformer_plugin.benchmark.memory.OPTIONS', chosen)
    report = benchmark_memory(cfg, cfg.train_dataloader.dataset.data_root)
    assert {name: option['changes'] for name, option in report['options'].items()} == chosen
    works = [option['peak'] - option['before'] for option in report['options'].values()]
    assert 0 < works[1] < 0.9 * works[0]
    assert f'{works[1] / works[0]:.2f}' in memory_table(report)


def test_one_step_is_refused(cfg):
    with pytest.raises(ValueError, match='steps must be at least 2, not 1'):
        benchmark_memory(cfg, steps=1)
