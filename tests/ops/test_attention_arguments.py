"""Arguments of deformable attention that do not belong together are refused by name before a kernel reads them."""

import pytest
import torch

from bevformer_plugin.ops import (
    multi_scale_deformable_attention,
    ragged_deformable_attention,
)
from tests.ops.attention_inputs import batched_inputs, ragged_inputs

# What is refused must not depend on the backend.
pytestmark = [
    pytest.mark.parametrize('backend', ['native', 'triton', 'reference'], indirect=True),
    pytest.mark.usefixtures('backend'),
]

NAMES = ('value', 'spatial_shapes', 'sampling_locations', 'attention_weights', 'lengths')
SIZES = (4, 16, [(6, 8), (3, 4)], 3)  # heads, channels, levels, points
SHAPES = torch.tensor([[6, 8], [3, 4]])


def batch() -> dict[str, torch.Tensor]:
    """Two maps with five queries each."""
    return dict(zip(NAMES[:4], batched_inputs(2, 5, *SIZES), strict=True))


def lists() -> dict[str, torch.Tensor]:
    """Ten queries, six of the first map and four of the second."""
    return dict(zip(NAMES, ragged_inputs([6, 4], *SIZES), strict=True))


def test_what_fits_is_computed():
    assert multi_scale_deformable_attention(**batch()).shape == (2, 5, 64)
    assert ragged_deformable_attention(**lists()).shape == (10, 64)


BATCHES = {
    'weights of other points': (
        'attention_weights',
        torch.rand(2, 5, 4, 2, 5),
        r'attention_weights \(2, 5, 4, 2, 5\)',
    ),
    'weights of other queries': ('attention_weights', torch.rand(2, 6, 4, 2, 3), r'\(2, 6, 4, 2, 3\)'),
    'weights batched otherwise': ('attention_weights', torch.rand(5, 2, 4, 2, 3), r'\(5, 2, 4, 2, 3\)'),
    'weights of other heads': ('attention_weights', torch.rand(2, 5, 1, 2, 3), r'\(2, 5, 1, 2, 3\)'),
    'one map for two samples': ('value', torch.randn(1, 60, 4, 16), r'value \(1, 60, 4, 16\)'),
    'three maps for two samples': ('value', torch.randn(3, 60, 4, 16), r'value \(3, 60, 4, 16\)'),
    'other heads in the maps': ('value', torch.randn(2, 60, 2, 16), r'value \(2, 60, 2, 16\)'),
    'maps without heads': ('value', torch.randn(2, 60, 64), r'value \(2, 60, 64\)'),
    'no channels': ('value', torch.randn(2, 60, 4, 0), r'M, heads, C, L and P of 1 at least'),
    'fewer positions': ('value', torch.randn(2, 59, 4, 16), r'value holds 59 positions.*need 60'),
    'locations with a depth': ('sampling_locations', torch.rand(2, 5, 4, 2, 3, 3), r'\(2, 5, 4, 2, 3, 3\)'),
    'locations of one level': ('sampling_locations', torch.rand(2, 5, 4, 1, 3, 2), r'\(2, 5, 4, 1, 3, 2\)'),
    'one level of two': ('spatial_shapes', SHAPES[:1], r'spatial_shapes \(1, 2\)'),
    'three levels for two': ('spatial_shapes', torch.ones(3, 2, dtype=torch.int64), r'spatial_shapes \(3, 2\)'),
    'shapes of three numbers': ('spatial_shapes', torch.ones(2, 3, dtype=torch.int64), r'spatial_shapes \(2, 3\)'),
    'shapes in a row': ('spatial_shapes', torch.tensor([6, 8]), r'spatial_shapes \(2,\)'),
    'a negative shape': (
        'spatial_shapes',
        torch.tensor([[-6, -8], [3, 4]]),
        r'positive, got \[\[-6, -8\], \[3, 4\]\]',
    ),
    'an empty level': ('spatial_shapes', torch.tensor([[60, 1], [0, 4]]), r'positive, got \[\[60, 1\], \[0, 4\]\]'),
    'shapes that are no integers': (
        'spatial_shapes',
        SHAPES.float(),
        r'spatial_shapes.*int64 or int32, got torch.float32',
    ),
    'shapes that are flags': ('spatial_shapes', SHAPES.bool(), r'spatial_shapes.*got torch.bool'),
    'values that are integers': (
        'value',
        torch.ones(2, 60, 4, 16, dtype=torch.int64),
        r'value.*floating.*got torch.int64',
    ),
    'complex weights': (
        'attention_weights',
        torch.rand(2, 5, 4, 2, 3) + 0j,
        r'attention_weights.*got torch.complex64',
    ),
    'integer locations': (
        'sampling_locations',
        torch.ones(2, 5, 4, 2, 3, 2).int(),
        r'sampling_locations.*torch.int32',
    ),
    'weights elsewhere': ('attention_weights', torch.rand(2, 5, 4, 2, 3, device='meta'), r'attention_weights on meta'),
}
LISTS = {
    'lengths of three maps': ('lengths', torch.tensor([4, 3, 3]), r'lengths \(3,\)'),
    'lengths that sum to less': ('lengths', torch.tensor([6, 3]), r'lengths \[6, 3\] do not divide the 10 rows'),
    'lengths that sum to more': ('lengths', torch.tensor([6, 6]), r'lengths \[6, 6\] do not divide the 10 rows'),
    'a negative length': ('lengths', torch.tensor([12, -2]), r'lengths \[12, -2\] do not divide the 10 rows'),
    'lengths that are no integers': ('lengths', torch.tensor([6.0, 4.0]), r'lengths.*got torch.float32'),
    'lengths elsewhere': ('lengths', torch.tensor([6, 4], device='meta'), r'lengths on meta'),
    'rows of a batch': ('sampling_locations', torch.rand(2, 5, 4, 2, 3, 2), r'\(2, 5, 4, 2, 3, 2\)'),
    'weights of fewer rows': ('attention_weights', torch.rand(9, 4, 2, 3), r'attention_weights \(9, 4, 2, 3\)'),
    'no map': ('value', torch.randn(0, 60, 4, 16), r'value \(0, 60, 4, 16\)'),
}


@pytest.mark.parametrize('name', BATCHES)
def test_a_batch_that_does_not_fit_is_refused(name):
    argument, tensor, message = BATCHES[name]
    with pytest.raises(ValueError, match=message):
        multi_scale_deformable_attention(**{**batch(), argument: tensor})


@pytest.mark.parametrize('name', LISTS)
def test_lists_that_do_not_fit_are_refused(name):
    argument, tensor, message = LISTS[name]
    with pytest.raises(ValueError, match=message):
        ragged_deformable_attention(**{**lists(), argument: tensor})


@pytest.mark.parametrize('name', LISTS)
def test_the_operator_of_torch_refuses_the_same_both_ways(name):
    argument, tensor, message = LISTS[name]
    if tensor.device.type == 'meta':
        pytest.skip('torch sends it to the fake operator')
    case = list({**lists(), argument: tensor}.values())
    with pytest.raises(ValueError, match=message):
        torch.ops.bevformer_plugin.deformable_attention(*case)
    with pytest.raises(ValueError, match=message):
        torch.ops.bevformer_plugin.deformable_attention_backward(torch.ones(10, 64), *case)


@pytest.mark.parametrize(
    ('grad', 'message'),
    [
        (torch.ones(9, 64), r'\(9, 64\) in torch.float32'),
        (torch.ones(10, 4, 16), r'\(10, 4, 16\)'),
        (torch.ones(10, 64).double(), r'\(10, 64\) in torch.float64'),
    ],
)
def test_a_gradient_of_another_output_is_refused(grad, message):
    with pytest.raises(ValueError, match=f'grad_output.*got {message}'):
        torch.ops.bevformer_plugin.deformable_attention_backward(grad, *lists().values())


def test_the_operator_of_torch_takes_one_type():
    with pytest.raises(ValueError, match=r'must be of one type here.*bfloat16'):
        torch.ops.bevformer_plugin.deformable_attention(
            *{**lists(), 'value': torch.ones(2, 60, 4, 16).bfloat16()}.values()
        )


def test_a_compiled_caller_is_refused_too():
    compiled = torch.compile(multi_scale_deformable_attention, backend='aot_eager')
    torch.testing.assert_close(compiled(**(case := batch())), multi_scale_deformable_attention(**case))
    for name in ('weights of other points', 'a negative shape'):
        argument, tensor, message = BATCHES[name]
        with pytest.raises(ValueError, match=message):
            compiled(**{**batch(), argument: tensor})
