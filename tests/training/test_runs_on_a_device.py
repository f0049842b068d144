"""Runs of the training tool on a device: precision, average of the weights, resuming."""

import pytest
import torch

from bevformer_plugin.weights import read_checkpoint
from tests.helpers.processes import NANO
from tests.helpers.repository import REPO
from tests.training.plants import Sigterm
from tests.training.training_runs import lightning_steps, train

pytestmark = pytest.mark.slow  # on a CPU, where other tests see the same


@pytest.fixture
def options(device, small_options):
    """Arguments of the tool for one short epoch on the device."""
    accelerator = 'gpu' if device.type == 'cuda' else 'cpu'
    return ['--accelerator', accelerator, '--devices', 1, '--cfg-options', *small_options]


def without_tf32() -> None:
    torch.backends.cudnn.allow_tf32 = False


def test_losses_are_those_of_the_cpu(device, options, small_options, tmp_path):
    train(NANO, tmp_path / 'there', *options, plant=without_tf32)
    train(NANO, tmp_path / 'here', '--accelerator', 'cpu', '--devices', 1, '--cfg-options', *small_options)
    found, expected = (lightning_steps(tmp_path / name) for name in ('there', 'here'))
    assert len(found) == len(expected) == 12
    # Later steps train on what rounding has made of the steps before.
    assert found[0]['loss'] == pytest.approx(expected[0]['loss'], rel=1e-4)
    assert found[-1]['loss'] == pytest.approx(expected[-1]['loss'], rel=0.05)


@pytest.mark.parametrize('precision', ['bf16-mixed', '16-mixed'])
def test_half_precision_trains(device, options, tmp_path, precision):
    if device.type == 'cpu' and precision == '16-mixed':
        pytest.skip('float16 is for GPUs')
    # Lightning's gradient scaler, which only float16 has, does without fused optimizers.
    train(NANO, tmp_path, '--precision', precision, *options, 'optim_wrapper.optimizer.fused=False')
    losses = [step['loss'] for step in lightning_steps(tmp_path)]
    assert len(losses) == 12 and all(0 < loss < 2 * losses[0] for loss in losses)


def test_a_stopped_run_goes_on_with_its_average(options, tmp_path):
    config = tmp_path / 'averaged.py'
    config.write_text(f"_base_ = '{REPO / NANO}'\ncustom_hooks = [dict(type='EMAHook', momentum=0.1)]\n")
    train(config, tmp_path / 'whole', *options)
    train(config, tmp_path / 'stopped', *options, plant=Sigterm(epoch=0, batch=5), expect=143)
    train(config, tmp_path / 'stopped', '--resume', *options)
    ours, theirs = (read_checkpoint(str(tmp_path / name / 'last.ckpt')) for name in ('stopped', 'whole'))
    assert ours['global_step'] == theirs['global_step'] == 12
    for part in ('state_dict', 'current_model_state'):
        assert ours[part].keys() == theirs[part].keys()
        for name, tensor in theirs[part].items():
            # A GPU adds in any order: Adam's steps of the smallest gradients may differ.
            assert (ours[part][name].float() - tensor.float()).abs().mean() < 1e-3, name
    moved = [
        name for name, tensor in theirs['state_dict'].items() if (tensor != theirs['current_model_state'][name]).any()
    ]
    assert moved  # the average is not the trained weights
