"""Losses and gradients that are NaN stop the run, and say where they come from."""

import pytest
import torch

from bevformer_plugin.errors import NotFiniteError
from bevformer_plugin.training.guards import MOST_LEFT_OUT, LeftOutSteps
from bevformer_plugin.weights import read_checkpoint
from tests.helpers.processes import NANO, run_tool
from tests.training.plants import NotFinite

NECK = 'img_neck.lateral_convs.1.conv.weight'
FFN = 'heads.detection.decoder.layers.0.ffn'


@pytest.mark.parametrize(
    ('plant', 'message'),
    [
        (NotFinite('parameter', NECK, step=2), f'parameter {NECK} is not finite'),
        (NotFinite('output', FFN, step=2), f'the output of {FFN} is not finite'),
        (NotFinite('gradient', NECK, step=2), f'the gradient of {NECK} is not finite (1 parameters)'),
    ],
)
def test_the_run_stops_and_names_the_tensor_the_step_and_the_samples(small_options, tmp_path, plant, message):
    done = run_tool('train', NANO, '--work-dir', tmp_path, '--cfg-options', *small_options, plant=plant)
    assert done.returncode == 1
    assert done.last_line.startswith(f'error: {message}')
    kept = read_checkpoint(str(tmp_path / 'not_finite.ckpt'))
    assert f'at step 2, samples {kept["samples"][0]}.' in done.last_line and len(kept['samples']) == 1
    assert 'not_finite.ckpt' in done.last_line and kept['global_step'] == 2
    finite = {name: value.isfinite().all() for name, value in kept['state_dict'].items() if name.endswith('.weight')}
    assert [name for name in finite if not finite[name]] == ([NECK] if plant.kind == 'parameter' else [])
    state = kept['optimizer']['state']
    assert all(torch.as_tensor(value['step']) == 2 for value in state.values())
    resumed = run_tool('train', NANO, '--work-dir', tmp_path, '--resume', '--cfg-options', *small_options)
    assert resumed.returncode == 1 and 'nothing to resume' in resumed.last_line


def test_one_process_is_enough_to_stop_all(small_options, tmp_path):
    done = run_tool(
        'train',
        NANO,
        '--work-dir',
        tmp_path,
        '--cfg-options',
        *small_options,
        processes=2,
        plant=NotFinite('output', FFN, step=1, rank=0),
    )
    assert done.returncode == 1 and done.last_line.startswith(f'error: the output of {FFN} is not finite')
    assert read_checkpoint(str(tmp_path / 'not_finite.ckpt'))['global_step'] == 1


def test_steps_that_a_scaler_leaves_out_for_ever_stop_the_run():
    counted, overflow = LeftOutSteps(), torch.tensor(float('inf'))
    for norm in [overflow] * (MOST_LEFT_OUT - 1) + [torch.tensor(1.0)] + [overflow] * (MOST_LEFT_OUT - 1):
        counted.note(norm)
    with pytest.raises(
        NotFiniteError, match=r'the last 100 steps overflowed, .* lower a static optim_wrapper\.loss_scale'
    ):
        counted.note(overflow)
