"""Every backend of modulated deformable convolution against the definition in float64, and the operator to torch."""

import pytest
import torch
from torch import Tensor
from torch.library import opcheck

from bevformer_plugin.layers import ModulatedDeformConv2dPack
from bevformer_plugin.ops import (
    DEFORM_CONV_BACKENDS,
    MMCV_EXT,
    DeformConvSettings,
    deform_conv_backend_name,
    mmcv_deform_conv,
    modulated_deform_conv2d,
    set_deform_conv_backend,
)
from bevformer_plugin.ops.native import deform_conv as native
from bevformer_plugin.ops.native import load_library
from bevformer_plugin.ops.triton.support import convolves_in_tf32
from tests.ops.deform_conv_cases import CASES, make_inputs

needs_compiler = pytest.mark.skipif(load_library() is None, reason='no C++ compiler on this machine')


def compute(inputs: tuple[Tensor, ...], settings: DeformConvSettings) -> list[Tensor]:
    """Output, and the gradients of all inputs for a fixed gradient of the output."""
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    output = modulated_deform_conv2d(*leaves, **vars(settings))
    grad = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    output.backward(grad.to(output.dtype))
    return [output.detach(), *(leaf.grad for leaf in leaves)]


def exact(name: str) -> list[Tensor]:
    set_deform_conv_backend('reference')
    return compute(make_inputs(CASES[name], dtype=torch.float64), CASES[name][4])


@pytest.mark.parametrize('deform_conv_backend', DEFORM_CONV_BACKENDS, indirect=True)
@pytest.mark.parametrize('name', CASES)
def test_values_and_gradients_equal_the_definition_in_float64(deform_conv_backend, name):
    inputs = make_inputs(CASES[name])
    assert deform_conv_backend_name(inputs[0]) == deform_conv_backend
    ours = compute(inputs, CASES[name][4])
    for single, double in zip(ours, exact(name), strict=True):
        torch.testing.assert_close(single, double.float(), atol=3e-4, rtol=1e-4)


@pytest.mark.parametrize('deform_conv_backend', ['native', 'triton'], indirect=True)
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(deform_conv_backend, dtype):
    inputs, offset, *rest = make_inputs(CASES['as in a ResNet'])
    # In half precision many offsets would be whole numbers of pixels, where the gradient has a step.
    halved = inputs.to(dtype), offset, *(tensor.to(dtype) for tensor in rest)
    ours = compute(halved, CASES['as in a ResNet'][4])
    set_deform_conv_backend('reference')
    # Rounding the inputs is the caller's doing: the definition sees them rounded too.
    exactly = compute(tuple(tensor.double() for tensor in halved), CASES['as in a ResNet'][4])
    for half, double, name in zip(
        ours, exactly, ('output', 'inputs', 'offset', 'mask', 'weight', 'bias'), strict=True
    ):
        assert half.dtype == (torch.float32 if name == 'offset' else dtype)
        # What is rounded on the way are the columns, 630 products of which make an output.
        assert (half.double() - double).abs().max() < 2 * torch.finfo(dtype).eps * double.abs().max(), name


@pytest.mark.parametrize('memory_format', [torch.channels_last, torch.contiguous_format])
def test_the_output_is_laid_out_as_the_inputs(memory_format):
    inputs, *rest = make_inputs(CASES['as in a ResNet'])
    output = modulated_deform_conv2d(inputs.to(memory_format=memory_format), *rest, **vars(CASES['as in a ResNet'][4]))
    assert output.is_contiguous(memory_format=memory_format)


def test_blocks_of_columns_make_one_output(monkeypatch):
    """As small blocks as there are, the last one smaller than the others, which the small maps of tests never need."""
    inputs, settings = make_inputs(CASES['groups that cross']), CASES['groups that cross'][4]
    expected = compute(inputs, settings)
    monkeypatch.setattr(native, 'COLUMN_BYTES', 5 * 4 * settings.groups * inputs[3][0].numel())
    torch.testing.assert_close(compute(inputs, settings), expected, atol=1e-4, rtol=1e-4)


@needs_compiler
def test_sampling_and_its_gradients_do_not_depend_on_the_number_of_threads():
    inputs, settings = make_inputs(CASES['as in a ResNet']), CASES['as in a ResNet'][4]
    threads, results = torch.get_num_threads(), []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            columns = native._Columns(*inputs[:4], settings)
            passed_on = native._Gradients(columns)
            passed_on.add(columns.sample(0, columns.rows), 0, columns.rows)
            results.append([passed_on.image, passed_on.offset, passed_on.mask])
    finally:
        torch.set_num_threads(threads)
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)


@pytest.mark.skipif(MMCV_EXT == 'compiled', reason='the compiled operator runs on a GPU only')
@pytest.mark.parametrize('name', CASES)
def test_mmcv_is_called_as_its_operator_wants_it(name):
    """The stand-in has the calling convention of the compiled operator."""
    inputs, settings = make_inputs(CASES[name]), CASES[name][4]
    expected = compute(inputs, settings)
    grad = torch.randn(expected[0].shape, generator=torch.Generator().manual_seed(1))
    output = mmcv_deform_conv.forward(*inputs, settings)
    ours = [output, *mmcv_deform_conv.backward(grad, *inputs[:4], settings)]
    torch.testing.assert_close(ours, expected[:5], atol=1e-4, rtol=1e-4)


def test_offsets_are_never_cast_down():
    inputs, settings = make_inputs(CASES['far offsets']), CASES['far offsets'][4]
    rounded = [tensor.bfloat16() for tensor in inputs]
    expected = modulated_deform_conv2d(rounded[0], inputs[1], *rounded[2:], **vars(settings))
    with torch.autocast('cpu', torch.bfloat16):
        output = modulated_deform_conv2d(*inputs, **vars(settings))
        direct = torch.ops.bevformer_plugin.modulated_deform_conv(*inputs, *vars(settings).values())
    assert output.dtype == direct.dtype == torch.bfloat16
    assert torch.equal(output, expected) and torch.equal(direct, expected)


def test_products_stay_in_float32_if_the_backward_pass_runs_under_autocast():
    inputs, settings = make_inputs(CASES['as in a ResNet']), CASES['as in a ResNet'][4]
    grad, pairs = torch.ones(2, 20, 9, 11), ([1, 1], [1, 1], [1, 1])
    backward = torch.ops.bevformer_plugin.modulated_deform_conv_backward
    expected = backward(grad, *inputs[:4], *pairs, settings.groups, settings.deform_groups)
    with torch.autocast('cpu', torch.bfloat16):
        found = backward(grad, *inputs[:4], *pairs, settings.groups, settings.deform_groups)
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize('name', ['as in a ResNet', 'groups that cross', 'one pixel'])
@pytest.mark.parametrize('memory_format', [torch.channels_last, torch.contiguous_format])
def test_torch_accepts_the_operator(name, memory_format):
    inputs, *rest = (tensor.requires_grad_() for tensor in make_inputs(CASES[name]))
    inputs = inputs.detach().to(memory_format=memory_format).requires_grad_()
    arguments = (inputs, *rest, *vars(CASES[name][4]).values())
    opcheck(torch.ops.bevformer_plugin.modulated_deform_conv.default, arguments)


@pytest.mark.parametrize('deform_conv_backend', ['native', 'reference'], indirect=True)
def test_compiles_into_one_graph_forward_and_backward(deform_conv_backend):
    torch.manual_seed(0)
    layer, results = ModulatedDeformConv2dPack(8, 6, 3, padding=1, deform_groups=2), []
    torch.nn.init.normal_(layer.conv_offset.weight, std=0.3)
    for convolve in (layer, torch.compile(layer, backend='aot_eager', fullgraph=True)):
        inputs = torch.randn(2, 8, 7, 9, generator=torch.Generator().manual_seed(0)).requires_grad_()
        layer.zero_grad()
        output = convolve(inputs)
        output.square().sum().backward()
        results.append([output, inputs.grad, *(parameter.grad.clone() for parameter in layer.parameters())])
    torch.testing.assert_close(results[0], results[1])


def test_exports():
    layer, inputs = ModulatedDeformConv2dPack(4, 6, 3, padding=1), torch.randn(1, 4, 5, 6)
    program = torch.export.export(layer, (inputs,))
    targets = [str(node.target) for node in program.graph.nodes]
    assert 'bevformer_plugin.modulated_deform_conv.default' in targets
    torch.testing.assert_close(program.module()(inputs), layer(inputs))


def test_products_on_a_gpu_have_the_precision_of_convolutions(monkeypatch):
    assert convolves_in_tf32()
    with monkeypatch.context() as patch:
        patch.setattr(torch.backends.cudnn, 'allow_tf32', False)
        assert not convolves_in_tf32()
    if hasattr(torch.backends.cudnn, 'conv'):
        torch.backends.cudnn.conv.fp32_precision = 'ieee'
        try:
            assert not convolves_in_tf32()
        finally:
            torch.backends.cudnn.conv.fp32_precision = 'tf32'


def test_the_backward_pass_keeps_no_columns():
    """What autograd holds is what the operator was given."""
    inputs, settings = make_inputs(CASES['as in a ResNet']), CASES['as in a ResNet'][4]
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.shape), lambda tensor: tensor):
        modulated_deform_conv2d(inputs[0].requires_grad_(), *inputs[1:], **vars(settings))
    assert kept == [tensor.shape for tensor in inputs[:4]]


def test_backends_that_do_not_exist_or_cannot_are_refused(monkeypatch):
    message = "no deformable convolution backend 'cuda': choose from native, triton, mmcv, reference"
    with pytest.raises(ValueError, match=message):
        set_deform_conv_backend('cuda')
    monkeypatch.setenv('BEVFORMER_DEFORM_CONV_BACKEND', 'cuda')
    with pytest.raises(ValueError, match=message):
        deform_conv_backend_name(torch.ones(1))
    monkeypatch.setenv('BEVFORMER_DEFORM_CONV_BACKEND', 'native')
    inputs, settings = make_inputs(CASES['one pixel'], dtype=torch.float64), CASES['one pixel'][4]
    with pytest.raises(ValueError, match=r"'native' cannot compute torch\.float64 on cpu"):
        modulated_deform_conv2d(*inputs, **vars(settings))


@pytest.mark.parametrize(
    ('position', 'tensor', 'message'),
    [
        (
            0,
            torch.ones(2, 70, 9, 11),
            r'grad_output.*must be \(2, 20, 9, 11\) in .*float32.*got \(2, 70, 9, 11\)',
        ),
        (0, torch.ones(2, 20, 9, 11).double(), r'got \(2, 20, 9, 11\) in torch\.float64'),
        (3, torch.ones(2, 9, 9, 10), r'mask.*must be \(2, 9, 9, 11\)'),
        (5, [1], r'stride.*must be two numbers, got \[1\]'),
    ],
)
def test_the_operator_of_torch_refuses_what_does_not_fit(position, tensor, message):
    arguments = [torch.ones(2, 20, 9, 11), *make_inputs(CASES['as in a ResNet'])[:4], [1, 1], [1, 1], [1, 1], 1, 1]
    arguments[position] = tensor
    with pytest.raises(ValueError, match=message):
        torch.ops.bevformer_plugin.modulated_deform_conv_backward(*arguments)
