"""FSDP in real processes (gloo on CPU) trains like DDP and writes the same checkpoint."""

import shutil

import pytest
import torch

from bevformer_plugin.weights import read_checkpoint
from tests.helpers.processes import NANO, run_tool
from tests.training.plants import KeepWeights
from tests.training.training_runs import SGD, lightning_steps, summary


@pytest.fixture(scope='module')
def options(small_options):
    """Histories, on running statistics, of up to two frames; clipped gradients; steps that add little noise."""
    return [
        '--cfg-options',
        *small_options,
        *SGD,
        'train_dataloader.dataset.queue_length=3',
        'optim_wrapper.clip_grad.max_norm=1.0',
        'optim_wrapper.optimizer.lr=0.001',
    ]


def train_with_both(options, make_folder) -> dict:
    """Work dirs of a run of each strategy, on two processes; each process leaves its weights in one file."""
    folders = {}
    for strategy in ('ddp', 'fsdp'):
        folder = folders[strategy] = make_folder(strategy)
        done = run_tool(
            'train',
            NANO,
            '--strategy',
            strategy,
            '--work-dir',
            folder,
            *options,
            processes=2,
            plant=KeepWeights(folder),
        )
        assert done.returncode == 0, done.output
    return folders


@pytest.fixture(scope='module')
def runs(options, tmp_path_factory):
    """Runs of each strategy that take a step with each batch."""
    return train_with_both(options, tmp_path_factory.mktemp)


def assert_same_steps(runs, expected: int) -> None:
    sharded, whole = (lightning_steps(runs[strategy]) for strategy in ('fsdp', 'ddp'))
    assert len(sharded) == len(whole) == expected
    for ours, theirs in zip(sharded, whole, strict=True):
        for name in theirs:
            if 'loss' in name:
                assert ours[name] == pytest.approx(theirs[name], rel=1e-5), name
        assert ours['grad_norm'] == pytest.approx(theirs['grad_norm'], rel=5e-5)


def test_losses_and_gradient_norms_are_those_of_ddp(runs):
    assert_same_steps(runs, 6)


def test_accumulated_gradients_are_those_of_ddp(options, tmp_path_factory):
    assert_same_steps(
        train_with_both(
            [*options, 'optim_wrapper.accumulative_counts=2', 'train_cfg.val_begin=2'], tmp_path_factory.mktemp
        ),
        3,
    )


def test_processes_agree_on_weights_and_running_statistics(runs):
    for strategy, folder in runs.items():
        first, second = (torch.load(folder / f'{rank}.pth') for rank in range(2))
        for name, value in first.items():
            assert torch.equal(value, second[name]), (strategy, name)


def test_one_file_holds_all_and_one_process_loads_it(runs, options, tmp_path):
    ours, theirs = (read_checkpoint(str(runs[strategy] / 'last.ckpt')) for strategy in ('fsdp', 'ddp'))
    assert type(next(iter(ours['state_dict'].values()))) is torch.Tensor
    torch.testing.assert_close(ours['state_dict'], theirs['state_dict'], rtol=0, atol=5e-6)
    for strategy in runs:
        done = run_tool(
            'test', NANO, runs[strategy] / 'last.ckpt', '--out', tmp_path / strategy / 'results_nusc.json', *options
        )
        assert done.returncode == 0, done.output
    assert summary(tmp_path / 'fsdp')['nd_score'] == pytest.approx(summary(tmp_path / 'ddp')['nd_score'], abs=1e-4)


@pytest.mark.slow
def test_each_strategy_goes_on_with_the_others_checkpoint(small_options, tmp_path):
    adam = ['--cfg-options', *small_options, 'param_scheduler.1.end=2', 'train_cfg.val_begin=3']
    losses = {}
    for first, then in (('ddp', 'ddp'), ('ddp', 'fsdp'), ('fsdp', 'fsdp'), ('fsdp', 'ddp')):
        folder = tmp_path / f'{first}_{then}'
        for strategy, epochs, resume in ((first, 1, []), (then, 2, ['--resume'])):
            done = run_tool(
                'train',
                NANO,
                '--strategy',
                strategy,
                '--work-dir',
                folder,
                *resume,
                *adam,
                f'train_cfg.max_epochs={epochs}',
                processes=2,
            )
            assert done.returncode == 0, done.output
        kept = read_checkpoint(str(folder / 'last.ckpt'))
        assert kept['global_step'] == 12
        assert next(iter(kept['optimizer_states'][0]['state'].values()))['step'].item() == 12
        losses[first, then] = [row['loss'] for row in resumed_steps(folder)]
    for pair, found in losses.items():
        assert found == pytest.approx(losses['ddp', 'ddp'], rel=5e-5), pair


def resumed_steps(folder) -> list[dict[str, float]]:
    """Logged values of a run's second part."""
    shutil.rmtree(folder / 'csv')
    next(folder.glob('csv_resumed_*')).rename(folder / 'csv')
    return lightning_steps(folder)
