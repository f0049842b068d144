"""Deformable attention and convolution on a device, by every backend that computes there, against float64."""

import pytest
import torch
from torch import Tensor

from bevformer_plugin.ops import (
    BACKENDS,
    DEFORM_CONV_BACKENDS,
    DeformConvSettings,
    modulated_deform_conv2d,
    set_attention_backend,
    set_deform_conv_backend,
)
from bevformer_plugin.ops.multi_scale_deformable_attention import ragged_deformable_attention
from tests.ops.attention_inputs import ragged_inputs
from tests.ops.deform_conv_cases import CASES, make_inputs

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


def assert_agree(names: tuple[str, ...], found: list[Tensor], exact: list[Tensor], bound: float) -> None:
    """Differences stay below this part of the largest exact value."""
    for name, ours, theirs in zip(names, found, exact, strict=True):
        error = (ours - theirs).abs().max() / theirs.abs().max()
        assert error < bound, f'{name}: {error}'


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
    assert_agree(('output', 'value', 'locations', 'weights'), found, exact, BOUNDS[dtype])


CONVOLUTIONS = ('as in a ResNet', 'far offsets', 'groups that cross', 'random 1')
# Positions 120 pixels away are known to 1e-5 pixels in float32.
CONVOLUTION_BOUNDS = {**BOUNDS, torch.float32: 1e-4}


def convolved(
    inputs: tuple[Tensor, ...], grad_output: Tensor, settings: DeformConvSettings, device: torch.device
) -> list[Tensor]:
    """The output and the gradients of all inputs, brought to the CPU in float64."""
    leaves = [tensor.to(device).requires_grad_() for tensor in inputs]
    output = modulated_deform_conv2d(*leaves, **vars(settings))
    output.backward(grad_output.to(output))
    return [tensor.detach().cpu().double() for tensor in (output, *(leaf.grad for leaf in leaves))]


@pytest.mark.parametrize('dtype', CONVOLUTION_BOUNDS)
@pytest.mark.parametrize('name', CONVOLUTIONS)
@pytest.mark.parametrize('backend', DEFORM_CONV_BACKENDS)
def test_convolutions_agree_with_float64(device, backend, name, dtype):
    if not DEFORM_CONV_BACKENDS[backend].supports(device.type, dtype):
        pytest.skip(f'the {backend} backend does not compute {dtype} on {device} here')
    if backend == 'reference' and dtype != torch.float32:
        pytest.skip('the reference sums in the type that it is given')
    image, offset, *rest = make_inputs(CASES[name])
    settings = CASES[name][4]
    # Offsets stay as they are: in half precision many are whole numbers of pixels, where the gradient has a step.
    inputs = image.to(dtype), offset, *(tensor.to(dtype) for tensor in rest)
    shape = len(image), len(rest[1]), *settings.output_size(image.shape, rest[1].shape)
    grad_output = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    set_deform_conv_backend('reference')
    exact = convolved(tuple(tensor.double() for tensor in inputs), grad_output, settings, torch.device('cpu'))
    set_deform_conv_backend(backend)
    found = convolved(inputs, grad_output, settings, device)
    assert_agree(('output', 'image', 'offset', 'mask', 'weight', 'bias'), found, exact, CONVOLUTION_BOUNDS[dtype])
