"""Deformable attention on a device, by every backend that computes there, against float64 on the CPU."""

import pytest
import torch
from torch import Tensor

from bevformer_plugin.ops import BACKENDS, set_attention_backend
from bevformer_plugin.ops.multi_scale_deformable_attention import ragged_deformable_attention
from tests.ops.attention_inputs import ragged_inputs

# Of a released config in small: maps with and without queries, channels that are no power of two.
SHAPES = {
    'SCA': ([60, 0, 33, 1], 8, 32, [(12, 20), (6, 10)], 8),
    'TSA': ([90, 90], 8, 32, [(10, 9)], 4),
    'odd': ([7, 5], 3, 20, [(5, 3), (2, 2), (1, 1)], 2),
}
# How far outputs and gradients lie from those of float64 with the same inputs, as a share of the largest of them. Half
# precision rounds what it returns to 2 ** -9 and 2 ** -12 of itself, and what it adds up as it goes to a few times of
# that.
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}


def computed(inputs: tuple[Tensor, ...], grad_output: Tensor, device: torch.device) -> list[Tensor]:
    """The output and the gradients of value, locations and weights, brought to the CPU in float64."""
    value, shapes, locations, weights, lengths = inputs
    value, locations, weights = (tensor.to(device).requires_grad_() for tensor in (value, locations, weights))
    output = ragged_deformable_attention(value, shapes, locations, weights, lengths)
    output.backward(grad_output.to(output))
    return [tensor.detach().cpu().double() for tensor in (output, value.grad, locations.grad, weights.grad)]


@pytest.mark.parametrize('dtype', BOUNDS)
@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('backend', BACKENDS)
def test_backends_agree_with_float64(device, backend, shape, dtype):
    if not BACKENDS[backend].supports(device.type, dtype):
        pytest.skip(f'the {backend} backend does not compute {dtype} on {device} here')
    if backend == 'reference' and dtype != torch.float32:
        pytest.skip('the reference rounds positions to the type it is given, and under autocast gets float32')
    inputs = ragged_inputs(*SHAPES[shape], dtype)
    rows = sum(SHAPES[shape][0])
    grad_output = torch.randn(rows, SHAPES[shape][1] * SHAPES[shape][2], generator=torch.Generator().manual_seed(1))
    grad_output = grad_output.to(dtype)
    set_attention_backend('reference')
    exact = computed(
        tuple(tensor.double() if tensor.is_floating_point() else tensor for tensor in inputs),
        grad_output.double(),
        torch.device('cpu'),
    )
    set_attention_backend(backend)
    found = computed(inputs, grad_output, device)
    for name, ours, theirs in zip(('output', 'value', 'locations', 'weights'), found, exact, strict=True):
        error = (ours - theirs).abs().max() / theirs.abs().max()
        assert error < BOUNDS[dtype], f'{name}: {error}'
