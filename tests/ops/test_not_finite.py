"""NaN and infinity: every backend makes the same of its results not finite, and what is far outside counts as zero."""

import math

import pytest
import torch

from bevformer_plugin.ops import MMCV_EXT, mmcv_operator, set_attention_backend
from bevformer_plugin.ops.backends import BACKENDS
from bevformer_plugin.ops.multi_scale_deformable_attention import ragged_deformable_attention
from tests.ops.attention_inputs import ragged_inputs

BAD = {'nan': math.nan, 'inf': math.inf, '-inf': -math.inf}
SHAPES = [(4, 4), (2, 3)]
ROWS, HEADS, CHANNELS, POINTS = 6, 2, 8, 3
INSIDE, OUTSIDE = (0.31, 0.42), (3.0, 0.42)
CORNERS = [4, 5, 8, 9]  # around INSIDE, of the first level


def make_case() -> dict[str, torch.Tensor]:
    """Two maps with three queries each; the first sample of the first query lies inside its map."""
    value, _, locations, weights, _ = ragged_inputs([3, 3], HEADS, CHANNELS, SHAPES, POINTS)
    locations[0, 0, 0, 0] = torch.tensor(INSIDE)
    grad = torch.rand(ROWS, HEADS * CHANNELS, generator=torch.Generator().manual_seed(0))
    return {'value': value, 'locations': locations, 'weights': 0.1 + weights, 'grad': 0.1 + grad}


def run(backend: str, case: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Output and gradients, as the backend itself returns them to autograd."""
    set_attention_backend(backend)
    leaves = {name: case[name].clone().requires_grad_() for name in ('value', 'locations', 'weights')}
    output = ragged_deformable_attention(
        leaves['value'], torch.tensor(SHAPES), leaves['locations'], leaves['weights'], torch.tensor([3, 3])
    )
    output.backward(case['grad'])
    return {'output': output.detach(), **{name: leaf.grad for name, leaf in leaves.items()}}


def run_mmcv(case: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The calls of mmcv's operator, which the stand-in answers where none is compiled."""
    inputs = case['value'], SHAPES, case['locations'], case['weights'], torch.tensor([3, 3])
    grads = mmcv_operator.backward(case['grad'], *inputs)
    results = (mmcv_operator.forward(*inputs), *grads)
    return dict(zip(('output', 'value', 'locations', 'weights'), results, strict=True))


def expected_not_finite(case: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """What the rule says of one bad number in the first sample of the first row and head, or in its gradient."""
    flags = {key: torch.zeros(case[key].shape, dtype=torch.bool) for key in ('value', 'locations', 'weights')}
    flags['output'] = torch.zeros(ROWS, HEADS, CHANNELS, dtype=torch.bool)
    first_sample = (0, 0, 0, 0)
    if name in ('locations', 'weights'):
        flags['output'][0, 0] = True
        flags['locations'][first_sample] = True
    if name == 'locations':
        flags['weights'][first_sample] = True
    if name == 'weights' and case['locations'][first_sample][0] < 1:
        flags['value'][0, CORNERS, 0] = True
    if name == 'grad':
        flags['locations'][0, 0] = flags['weights'][0, 0] = True
    flags['output'] = flags['output'].flatten(1)
    return flags


@pytest.fixture(params=[*BACKENDS])
def attend(request):
    """Run a case with one backend; skip where it cannot run."""
    if request.param == 'mmcv':
        if MMCV_EXT == 'compiled':
            pytest.skip('the compiled operator runs on a GPU only')
        return run_mmcv
    if not BACKENDS[request.param].supports('cpu', torch.float32):
        pytest.skip(f'the {request.param} backend cannot run on this machine')
    return lambda case: run(request.param, case)


@pytest.mark.parametrize('bad', BAD)
@pytest.mark.parametrize('place', [INSIDE, OUTSIDE], ids=['inside', 'outside'])
@pytest.mark.parametrize('name', ['locations', 'weights', 'grad'])
def test_one_bad_number_makes_what_it_takes_part_in_not_finite(attend, name, place, bad):
    case = make_case()
    case['locations'][0, 0, 0, 0] = torch.tensor(place)
    first = {'locations': (0, 0, 0, 0, 1), 'weights': (0, 0, 0, 0), 'grad': (0, 3)}[name]
    case[name][first] = BAD[bad]
    results, expected = attend(case), expected_not_finite(case, name)
    for key in ('output', 'locations', 'weights'):
        assert torch.equal(~results[key].isfinite(), expected[key]), key
    if name == 'grad':  # reaches all corners of the row's samples, in that channel
        assert place == OUTSIDE or not results['value'][0, CORNERS, 0, 3].isfinite().any()
        assert results['value'][1].isfinite().all() and results['value'][:, :, 1].isfinite().all()
    else:
        assert torch.equal(~results['value'].isfinite(), expected['value'])


@pytest.mark.parametrize('bad', BAD)
def test_a_bad_value_reaches_those_who_look_at_it(attend, bad):
    case = make_case()
    case['value'][0, CORNERS[1], 0, 2] = BAD[bad]  # row 1, column 1 of four
    seen = (4 * case['locations'][:3, 0, 0] - 1.5).abs().amax(-1) < 1
    results = attend(case)
    assert seen[0, 0] and not seen.all()
    output = results['output'].unflatten(1, (HEADS, CHANNELS))
    assert torch.equal(~output[:3, 0, 2].isfinite(), seen.any(1))
    assert output[3:].isfinite().all() and output[:, 1].isfinite().all() and output[..., 3:].isfinite().all()
    assert torch.equal(~results['weights'][:3, 0, 0].isfinite(), seen)
    assert torch.equal(~results['locations'][:3, 0, 0].isfinite(), seen.unsqueeze(-1).expand(-1, -1, 2))
    assert results['value'].isfinite().all()


@pytest.mark.parametrize('far', [1.5, 1e4, 1e30, 3e38, -3e38])
def test_what_is_finite_and_far_outside_counts_as_zero(attend, far):
    case = make_case()
    case['locations'][0, 0, 0, 0] = torch.tensor([far, 0.42])
    without = {name: tensor.clone() for name, tensor in case.items()}
    without['weights'][0, 0, 0, 0] = 0
    results, expected = attend(case), attend(without)
    assert results['weights'][0, 0, 0, 0] == 0 and results['locations'][0, 0, 0, 0].tolist() == [0, 0]
    torch.testing.assert_close(results['output'], expected['output'], rtol=0, atol=0)
    torch.testing.assert_close(results['value'], expected['value'], rtol=0, atol=0)
