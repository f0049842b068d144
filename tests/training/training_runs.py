"""Runs of the training tool and what they leave: logged values, scores and checkpoints."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import torch

from tests.helpers.processes import run_tool
from tests.training.plants import KeepWeights

# An option for runs of which no test reads the scores.
UNVALIDATED = 'train_cfg.val_begin=9'
TIMES = ('train/data_time', 'train/samples_per_second')

# Adam would magnify differences of rounding in gradients near 0.
SGD = [
    'optim_wrapper.optimizer._delete_=True',
    'optim_wrapper.optimizer.type=SGD',
    'optim_wrapper.optimizer.lr=0.01',
    'optim_wrapper.optimizer.weight_decay=0.01',
    'param_scheduler.0.start_factor=1.0',
    'auto_scale_lr.base_batch_size=2',
]


def train(config: object, work_dir: Path, *arguments: object, expect: int = 0, plant: Callable | None = None) -> str:
    """Run the training tool in a process, assert that it ends with the code ``expect``, and return its output."""
    done = run_tool('train', config, '--work-dir', work_dir, *arguments, plant=plant)
    assert done.returncode == expect, done.output
    return done.output


def final_weights(
    config: object, folder: Path, options: list[str], processes: int, batch_size: int
) -> list[dict[str, torch.Tensor]]:
    """Train to ``folder / 'run'`` and return the weights that each of the processes ends with."""
    folder.mkdir()
    done = run_tool(
        'train',
        config,
        '--work-dir',
        folder / 'run',
        '--cfg-options',
        *options,
        f'train_dataloader.batch_size={batch_size}',
        processes=processes,
        plant=KeepWeights(folder),
    )
    assert done.returncode == 0, done.output
    return [torch.load(folder / f'{rank}.pth') for rank in range(processes)]


def lightning_steps(work_dir: Path) -> list[dict[str, float]]:
    """Values that a Lightning run logged in each step, named as MMEngine names them."""
    with open(work_dir / 'csv' / 'metrics.csv') as file:
        return [
            {
                key.removeprefix('train/'): float(value)
                for key, value in row.items()
                if key.startswith('train/') and value
            }
            for row in csv.DictReader(file)
            if row['train/loss']
        ]


def mmengine_steps(work_dir: Path) -> list[dict[str, float]]:
    """Values that a run of MMEngine's Runner logged in each step."""
    log = next(work_dir.glob('*/vis_data/scalars.json'))
    return [row for row in map(json.loads, log.read_text().splitlines()) if 'loss' in row]


def rows(work_dir: Path) -> dict[int, dict[str, str]]:
    """Logged values by step, of all parts of a run."""
    found = {}
    for file in sorted(work_dir.glob('csv*/metrics.csv')):
        with open(file) as lines:
            for row in csv.DictReader(lines):
                kept = {key: value for key, value in row.items() if value and key not in TIMES}
                found.setdefault(int(row['step']), {}).update(kept)
    return found


def summary(folder: Path) -> dict:
    """The devkit's metrics of an evaluation, without the time that it took."""
    content = json.loads((folder / 'metrics_summary.json').read_text())
    return {key: value for key, value in content.items() if key != 'eval_time'}


def assert_same(ours: object, theirs: object, where: str = '') -> None:
    """Assert that nested containers are equal, tensors in them bit for bit; a failure names the place."""
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for key in ours:
            assert_same(ours[key], theirs[key], f'{where}/{key}')
    elif isinstance(ours, list | tuple):
        assert_same(dict(enumerate(ours)), dict(enumerate(theirs)), where)
    elif isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs), where
    else:
        assert ours == theirs, where
