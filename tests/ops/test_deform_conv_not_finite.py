"""NaN and infinity: every backend makes the same of its results not finite, and what is far outside counts as zero."""

import math

import pytest
import torch
from torch import Tensor

from bevformer_plugin.ops import DEFORM_CONV_BACKENDS, MMCV_EXT, DeformConvSettings, set_deform_conv_backend
from bevformer_plugin.ops.backends import DEFORM_CONV
from bevformer_plugin.ops.mmcv_deform_conv import backward as mmcv_backward
from bevformer_plugin.ops.mmcv_deform_conv import forward as mmcv_forward

BAD = {'nan': math.nan, 'inf': math.inf, '-inf': -math.inf}
SETTINGS = DeformConvSettings((1, 1), (1, 1), (1, 1), 2, 2)
NAMES = ('output', 'inputs', 'offset', 'mask', 'weight')
TAP = 4  # in the middle of the kernel, of the first group
PIXEL = (0, slice(None), 2, 2)  # of the first image
INSIDE, OUTSIDE = (0.31, 0.42), (30.0, 0.42)  # (y, x) from the pixel


def make_case(place: tuple[float, float] = INSIDE) -> dict[str, Tensor]:
    """Two images of 5 x 6 pixels and 4 channels; offsets are never whole pixels."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: 0.1 + 0.8 * torch.rand(*shape, generator=generator)  # noqa: E731
    case = {
        'inputs': draw(2, 4, 5, 6),
        'offset': draw(2, 36, 5, 6),
        'mask': draw(2, 18, 5, 6),
        'weight': draw(6, 2, 3, 3),
        'grad': draw(2, 6, 5, 6),
    }
    case['offset'][0, 2 * TAP : 2 * TAP + 2, 2, 2] = torch.tensor(place)
    return case


def run(backend: str, case: dict[str, Tensor]) -> dict[str, Tensor]:
    """Output and gradients, as the backend itself returns them."""
    arguments = case['inputs'], case['offset'], case['mask'], case['weight']
    if backend == 'mmcv':
        results = mmcv_forward(*arguments, None, SETTINGS), *mmcv_backward(case['grad'], *arguments, SETTINGS)
    else:
        set_deform_conv_backend(backend)
        chosen = DEFORM_CONV.backend_for(case['inputs'])
        results = chosen.forward(*arguments, None, SETTINGS), *chosen.backward(case['grad'], *arguments, SETTINGS)
    return dict(zip(NAMES, results, strict=True))


@pytest.fixture(params=[*DEFORM_CONV_BACKENDS])
def convolve(request):
    """Run a case with one backend; skip where it cannot run. The stand-in answers mmcv's calls if none is compiled."""
    if request.param == 'mmcv' and MMCV_EXT == 'compiled':
        pytest.skip('the compiled operator runs on a GPU only')
    if request.param != 'mmcv' and not DEFORM_CONV_BACKENDS[request.param].supports('cpu', torch.float32):
        pytest.skip(f'the {request.param} backend cannot run on this machine')
    return lambda case: run(request.param, case)


def expected_not_finite(name: str, place: tuple[float, float]) -> dict[str, Tensor]:
    """What the rule says of one bad number of the tap, or in the pixel's gradient of the first output."""
    case = make_case()
    flags = {key: torch.zeros(case.get(key, case['grad']).shape, dtype=torch.bool) for key in NAMES}
    seen = (0, slice(0, 2), slice(2, 4), slice(2, 4))
    if name == 'grad':
        flags['offset'][0, :18, 2, 2] = flags['mask'][0, :9, 2, 2] = True  # of the group of channels it comes from
        flags['weight'][0] = True
        return flags
    flags['output'][0, :3, 2, 2] = True
    flags['weight'][:3, :, 1, 1] = True
    flags['offset'][0, 2 * TAP : 2 * TAP + 2, 2, 2] = True
    if name == 'offset':
        flags['mask'][0, TAP, 2, 2] = True
    elif place == INSIDE:
        flags['inputs'][seen] = True
    return flags


@pytest.mark.parametrize('bad', BAD)
@pytest.mark.parametrize('place', [INSIDE, OUTSIDE], ids=['inside', 'outside'])
@pytest.mark.parametrize('name', ['offset', 'mask', 'grad'])
def test_one_bad_number_makes_what_it_takes_part_in_not_finite(convolve, name, place, bad):
    case = make_case(place)
    case[name][{'offset': (0, 2 * TAP + 1, 2, 2), 'mask': (0, TAP, 2, 2), 'grad': (0, 0, 2, 2)}[name]] = BAD[bad]
    results, expected = convolve(case), expected_not_finite(name, place)
    for key in NAMES:
        if (name, key) != ('grad', 'inputs'):
            assert torch.equal(~results[key].isfinite(), expected[key]), key
    if name == 'grad':  # reaches all that the pixel looks at, and nothing of the other group or image
        assert place == OUTSIDE or not results['inputs'][0, :2, 2:4, 2:4].isfinite().any()
        assert results['inputs'][1].isfinite().all() and results['inputs'][:, 2:].isfinite().all()


@pytest.mark.parametrize('bad', BAD)
def test_a_bad_value_reaches_those_who_look_at_it(convolve, bad):
    case = make_case()
    case['inputs'][0, 1, 2, 3] = BAD[bad]
    y = torch.arange(5)[:, None] + torch.arange(-1, 2).repeat_interleave(3)[:, None, None] + case['offset'][0, :18:2]
    x = torch.arange(6)[None] + torch.arange(-1, 2).repeat(3)[:, None, None] + case['offset'][0, 1:18:2]
    seen = ((y - 2).abs() < 1) & ((x - 3).abs() < 1)  # TxHoxWo
    assert seen.any() and not seen.any(0).all()
    results = convolve(case)
    assert torch.equal(~results['output'][0, :3].isfinite(), seen.any(0).expand(3, -1, -1))
    assert results['output'][1].isfinite().all() and results['output'][:, 3:].isfinite().all()
    assert torch.equal(~results['mask'][0, :9].isfinite(), seen)
    assert torch.equal(~results['offset'][0, :18].isfinite(), seen.repeat_interleave(2, 0))
    weights = torch.zeros(6, 2, 9, dtype=torch.bool)
    weights[:3, 1] = seen.flatten(1).any(1)
    assert torch.equal(~results['weight'].flatten(2).isfinite(), weights)
    assert results['inputs'].isfinite().all()


@pytest.mark.parametrize('far', [40.0, 1e5, 1e30, 3e38, -3e38])
def test_what_is_finite_and_far_outside_counts_as_zero(convolve, far):
    case, without = make_case((far, 0.42)), make_case((far, 0.42))
    without['mask'][0, TAP, 2, 2] = 0
    results, expected = convolve(case), convolve(without)
    assert results['mask'][0, TAP, 2, 2] == 0 and not results['offset'][0, 2 * TAP : 2 * TAP + 2, 2, 2].any()
    for key in ('output', 'inputs', 'weight'):
        torch.testing.assert_close(results[key], expected[key], rtol=0, atol=0)
