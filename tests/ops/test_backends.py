"""Every backend of multi-scale deformable attention against the definition in float64, and the operator to torch."""

import os
import random
import subprocess
import sys

import pytest
import torch
from torch.library import opcheck

from bevformer_plugin.ops import (
    MMCV_EXT,
    backend_name,
    mmcv_operator,
    multi_scale_deformable_attention,
    set_attention_backend,
)
from bevformer_plugin.ops.backends import BACKENDS
from bevformer_plugin.ops.multi_scale_deformable_attention import ragged_deformable_attention
from tests.ops.attention_inputs import batched_inputs, ragged_inputs

# rows per map, heads, channels, levels, points
CASES = {
    'odd channels': ([13, 13], 3, 5, [(4, 5), (1, 1)], 3),
    'one point, one level': ([40], 4, 16, [(24, 40)], 1),
    'lists of other lengths': ([7, 0, 12], 1, 32, [(6, 10), (3, 5), (2, 2)], 4),
    'a map one cell high': ([1], 8, 8, [(1, 7)], 2),
    'nothing to look at': ([0, 0], 2, 4, [(3, 3)], 2),
}


BATCH = (2, 13, 3, 5, [(4, 5), (1, 1)], 3)  # maps, queries, heads, channels, levels, points


def random_case(seed: int) -> tuple[list[int], int, int, list[tuple[int, int]], int]:
    numbers = random.Random(seed)
    levels = [(numbers.randint(1, 9), numbers.randint(1, 9)) for _ in range(numbers.randint(1, 4))]
    lengths = [numbers.randint(0, 20) for _ in range(numbers.randint(1, 5))]
    return lengths, numbers.randint(1, 5), numbers.randint(1, 40), levels, numbers.randint(1, 9)


CASES.update({f'random {seed}': random_case(seed) for seed in range(5)})


def gradients(case: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    """Output, and gradients of value, locations and weights for a fixed gradient of the output."""
    value, shapes, locations, weights, lengths = case
    leaves = [tensor.clone().requires_grad_() for tensor in (value, locations, weights)]
    output = ragged_deformable_attention(leaves[0], shapes, *leaves[1:], lengths)
    grad = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    output.backward(grad.to(output.dtype))
    return [output, *(leaf.grad for leaf in leaves)]


@pytest.mark.parametrize('backend', BACKENDS, indirect=True)
@pytest.mark.parametrize('name', CASES)
def test_values_and_gradients_equal_the_definition_in_float64(backend, name):
    case = ragged_inputs(*CASES[name])
    assert backend_name(case[0]) == backend
    ours = gradients(case)
    set_attention_backend('reference')
    for single, double in zip(ours, gradients(ragged_inputs(*CASES[name], dtype=torch.float64)), strict=True):
        torch.testing.assert_close(single, double.float(), atol=2e-4, rtol=1e-4, check_dtype=False)


@pytest.mark.parametrize('backend', ['native', 'triton'], indirect=True)
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(backend, dtype):
    halved = [
        tensor.to(dtype) if tensor.is_floating_point() else tensor
        for tensor in ragged_inputs(*CASES['lists of other lengths'])
    ]
    # Rounding the inputs is the caller's doing: the definition sees them rounded too.
    rounded = [tensor.double() if tensor.is_floating_point() else tensor for tensor in halved]
    output = ragged_deformable_attention(*halved)
    set_attention_backend('reference')
    torch.testing.assert_close(output, ragged_deformable_attention(*rounded).to(dtype))


@pytest.mark.skipif(MMCV_EXT == 'compiled', reason='the compiled operator runs on a GPU only')
@pytest.mark.parametrize('name', CASES)
def test_mmcv_is_called_as_its_operator_wants_it(name):
    """The stand-in has the calling convention of the compiled operator."""
    value, shapes, locations, weights, lengths = ragged_inputs(*CASES[name])
    inputs = value, shapes.tolist(), locations, weights, lengths
    set_attention_backend('reference')
    expected = gradients((value, shapes, locations, weights, lengths))
    grad = torch.randn(expected[0].shape, generator=torch.Generator().manual_seed(1))
    ours = [mmcv_operator.forward(*inputs), *mmcv_operator.backward(grad, *inputs)]
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_lists_of_a_batch_are_lists_of_each_map():
    value, shapes, locations, weights, lengths = ragged_inputs(*CASES['odd channels'])
    batched = multi_scale_deformable_attention(
        value, shapes, locations.unflatten(0, (2, 13)), weights.unflatten(0, (2, 13))
    )
    torch.testing.assert_close(
        batched.flatten(0, 1), ragged_deformable_attention(value, shapes, locations, weights, lengths)
    )


def test_locations_are_never_cast_down():
    value, shapes, locations, weights, lengths = ragged_inputs(*CASES['odd channels'])
    expected = ragged_deformable_attention(value.bfloat16().float(), shapes, locations, weights, lengths)
    with torch.autocast('cpu', torch.bfloat16):
        output = ragged_deformable_attention(value.bfloat16(), shapes, locations, weights, lengths)
    assert output.dtype == torch.float32
    torch.testing.assert_close(output, expected, atol=0, rtol=0)


@pytest.mark.parametrize('backend', ['native', 'reference'], indirect=True)
@pytest.mark.parametrize('name', CASES)
def test_torch_accepts_the_operator(backend, name):
    value, *rest = ragged_inputs(*CASES[name])
    rest[1].requires_grad_()
    rest[2].requires_grad_()
    opcheck(torch.ops.bevformer_plugin.deformable_attention.default, (value.requires_grad_(), *rest))


@pytest.mark.skipif(not hasattr(torch.Tag, 'cudagraph_unsafe'), reason='this version of torch has no such tag')
def test_no_cuda_graph_takes_the_operators():
    """It would take the spatial shapes, which are on the CPU, for memory of the GPU."""
    for name in ('deformable_attention', 'deformable_attention_backward'):
        assert torch.Tag.cudagraph_unsafe in getattr(torch.ops.bevformer_plugin, name).default.tags


class Attention(torch.nn.Module):
    def forward(self, value, shapes, locations, weights):
        return multi_scale_deformable_attention(value.tanh(), shapes, locations, weights).sin()


@pytest.mark.parametrize('backend', ['native', 'reference'], indirect=True)
def test_compiles_into_one_graph_with_gradients(backend):
    value, shapes, locations, weights = batched_inputs(*BATCH)
    results = []
    for module in (Attention(), torch.compile(Attention(), fullgraph=True, backend='aot_eager')):
        leaves = [tensor.clone().requires_grad_() for tensor in (value, locations, weights)]
        output = module(leaves[0], shapes, *leaves[1:])
        output.sum().backward()
        results.append([output, *(leaf.grad for leaf in leaves)])
    torch.testing.assert_close(results[0], results[1])


def test_exports():
    case = batched_inputs(*BATCH)
    program = torch.export.export(Attention(), case)
    targets = [str(node.target) for node in program.graph.nodes]
    assert 'bevformer_plugin.deformable_attention.default' in targets
    torch.testing.assert_close(program.module()(*case), Attention()(*case))


def test_names_that_do_not_exist_are_refused(monkeypatch):
    message = "no attention backend 'cuda': choose from native, triton, mmcv, reference"
    with pytest.raises(ValueError, match=message):
        set_attention_backend('cuda')
    monkeypatch.setenv('BEVFORMER_ATTENTION_BACKEND', 'cuda')
    with pytest.raises(ValueError, match=message):
        backend_name(torch.ones(1))


def test_what_the_program_chooses_goes_before_the_environment(monkeypatch):
    monkeypatch.setenv('BEVFORMER_ATTENTION_BACKEND', 'mmcv')
    set_attention_backend('reference')
    assert backend_name(torch.ones(1)) == 'reference'


def test_a_backend_that_cannot_is_refused(monkeypatch):
    monkeypatch.setenv('BEVFORMER_ATTENTION_BACKEND', 'native')
    with pytest.raises(ValueError, match=r"'native' cannot compute torch\.float64 on cpu"):
        multi_scale_deformable_attention(*[t.double() if t.is_floating_point() else t for t in batched_inputs(*BATCH)])


def test_the_choice_is_said_once():
    script = (
        'import torch\nfrom bevformer_plugin.ops import multi_scale_deformable_attention as attend\n'
        'case = torch.ones(1, 4, 1, 2), torch.tensor([[2, 2]]), torch.full((1, 1, 1, 1, 1, 2), 0.5)\n'
        'for _ in range(3): attend(*case, torch.ones(1, 1, 1, 1, 1))\n'
    )
    environment = {**os.environ, 'BEVFORMER_ATTENTION_BACKEND': 'reference'}
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, env=environment, check=True)
    assert (done.stdout + done.stderr).count('on cpu in torch.float32: reference backend') == 1
