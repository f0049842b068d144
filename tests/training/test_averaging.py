"""The average of the weights that a config's EMAHook asks for, exact over a stop."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from bevformer_plugin.configuration import load_config
from bevformer_plugin.training import DetectorModule
from bevformer_plugin.training.averaging import averages_weights
from bevformer_plugin.weights import read_checkpoint
from tests.helpers.processes import NANO
from tests.helpers.repository import REPO
from tests.training.plants import Sigterm
from tests.training.training_runs import UNVALIDATED, train

MOMENTUM = 0.1


@dataclass
class KeepSteps:
    """Keeps the weights before each step."""

    folder: Path

    def __call__(self) -> None:
        start = DetectorModule.on_train_batch_start

        def keep_and_start(module: DetectorModule, batch: dict, batch_idx: int) -> None:
            torch.save(dict(module.detector.named_parameters()), self.folder / f'{module.global_step:02d}.pth')
            start(module, batch, batch_idx)

        DetectorModule.on_train_batch_start = keep_and_start


@pytest.fixture(scope='module')
def averaging_config(tmp_path_factory):
    """The nano config with an average."""
    path = tmp_path_factory.mktemp('configs') / 'averaging.py'
    path.write_text(f"_base_ = '{REPO / NANO}'\ncustom_hooks = [dict(type='EMAHook', momentum={MOMENTUM})]\n")
    return path


@pytest.fixture(scope='module')
def unstopped(averaging_config, small_options, tmp_path_factory):
    """Work dir of a whole run, with its weights of every step."""
    work_dir = tmp_path_factory.mktemp('averaged')
    steps = tmp_path_factory.mktemp('steps')
    train(averaging_config, work_dir, '--cfg-options', *small_options, UNVALIDATED, plant=KeepSteps(steps))
    return work_dir, steps


def test_the_average_is_the_recurrence_over_all_steps(unstopped):
    work_dir, folder = unstopped
    checkpoint = read_checkpoint(str(work_dir / 'last.ckpt'))
    steps = [torch.load(file, weights_only=True) for file in sorted(folder.glob('*.pth'))][1:]
    average = None
    for weights in [*steps, {name: checkpoint['current_model_state'][name] for name in steps[0]}]:
        if average is None:
            average = {name: value.double() for name, value in weights.items()}  # begins at the first step's weights
        else:
            average = {name: (1 - MOMENTUM) * value + MOMENTUM * weights[name] for name, value in average.items()}
    assert len(steps) == 11
    for name, value in average.items():
        torch.testing.assert_close(checkpoint['state_dict'][name].double(), value, rtol=1e-5, atol=1e-6)
        if value.ndim > 1:
            assert not torch.equal(checkpoint['state_dict'][name], checkpoint['current_model_state'][name]), name


def test_a_run_that_was_stopped_has_the_same_average(unstopped, averaging_config, small_options, tmp_path):
    options = ['--cfg-options', *small_options, UNVALIDATED]
    train(averaging_config, tmp_path, *options, plant=Sigterm(epoch=0, batch=5), expect=143)
    train(averaging_config, tmp_path, '--resume', *options)
    ours, theirs = (read_checkpoint(str(folder / 'last.ckpt')) for folder in (tmp_path, unstopped[0]))
    for part in ('state_dict', 'current_model_state'):
        assert ours[part].keys() == theirs[part].keys()
        assert all(torch.equal(ours[part][name], theirs[part][name]) for name in ours[part]), part


def test_a_checkpoint_without_average_is_refused(lightning_run, averaging_config, small_options, tmp_path):
    output = train(
        averaging_config, tmp_path, '--resume', lightning_run / 'last.ckpt', '--cfg-options', *small_options, expect=1
    )
    assert 'was written without EMAHook in custom_hooks, the config is with it' in output.splitlines()[-1]


def test_sharded_weights_are_not_averaged(averaging_config, small_options, tmp_path):
    output = train(averaging_config, tmp_path, '--strategy', 'fsdp', '--cfg-options', *small_options, expect=1)
    assert 'fsdp cannot average weights' in output.splitlines()[-1]


@pytest.mark.parametrize(
    ('hooks', 'message'),
    [
        ([dict(type='EmptyCacheHook')], 'only EMAHook'),
        ([dict(type='EMAHook', interval=2)], 'only EMAHook'),
        ([dict(type='EMAHook'), dict(type='EMAHook')], 'holds 2 EMAHooks'),
        (["{'type'"], 'is no hook'),
    ],
)
def test_hooks_that_lightning_cannot_honour_are_refused(hooks, message):
    with pytest.raises(ValueError, match=message):
        averages_weights(load_config(NANO, {'custom_hooks': hooks}))
