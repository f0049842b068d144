"""Modulated deformable convolution against a plain loop, numerical gradients, and through mmcv and mmdet."""

import pytest
import torch
from torch.nn import functional as F

from bevformer_plugin.ops import modulated_deform_conv2d

SETTINGS = {  # stride, padding, dilation, groups, deform_groups
    'plain': ((1, 1), (1, 1), (1, 1), 1, 1),
    'strided': ((2, 3), (1, 0), (1, 1), 1, 1),
    'dilated': ((1, 1), (2, 1), (2, 1), 1, 1),
    'groups': ((1, 1), (1, 1), (1, 1), 2, 1),
    'deform_groups': ((1, 1), (1, 1), (1, 1), 1, 4),
    'everything': ((2, 1), (1, 2), (1, 2), 4, 2),
}


def make_case(stride, padding, dilation, groups, deform_groups, size=(6, 7), channels=4, outputs=8, kernel=(3, 2)):
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    out = [(size[i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in range(2)]
    taps = kernel[0] * kernel[1]
    inputs, offset, mask = (
        random(2, n, *shape)
        for n, shape in ((channels, size), (deform_groups * taps * 2, out), (deform_groups * taps, out))
    )
    return inputs, 2 * offset, mask.sigmoid(), random(outputs, channels // groups, *kernel), random(outputs)


def bilinear(image, y, x):
    """Value at a point, with zeros outside."""
    top, left = int(torch.floor(y)), int(torch.floor(x))
    value = 0.0
    for row, col in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        if 0 <= row < image.shape[0] and 0 <= col < image.shape[1]:
            value += image[row, col] * (1 - abs(y - row)) * (1 - abs(x - col))
    return value


def loop_convolution(inputs, offset, mask, weight, bias, stride, padding, dilation, groups, deform_groups):
    """The definition (DCNv2, equation 1), one product at a time."""
    outputs, per_group, kernel_h, kernel_w = weight.shape
    per_offset = inputs.shape[1] // deform_groups
    result = bias.view(1, -1, 1, 1).expand(len(inputs), -1, *offset.shape[2:]).clone()
    for b, o, i, j in torch.cartesian_prod(*(torch.arange(n) for n in result.shape)).tolist():
        for c in range(per_group):
            channel = o // (outputs // groups) * per_group + c
            for tap in range(kernel_h * kernel_w):
                at = channel // per_offset * kernel_h * kernel_w + tap
                y = i * stride[0] - padding[0] + tap // kernel_w * dilation[0] + offset[b, 2 * at, i, j]
                x = j * stride[1] - padding[1] + tap % kernel_w * dilation[1] + offset[b, 2 * at + 1, i, j]
                sample = bilinear(inputs[b, channel], y, x) * mask[b, at, i, j]
                result[b, o, i, j] += weight[o, c, tap // kernel_w, tap % kernel_w] * sample
    return result


@pytest.mark.parametrize('name', SETTINGS)
def test_equals_a_plain_loop(name):
    settings = SETTINGS[name]
    case = make_case(*settings, size=(4, 5))
    torch.testing.assert_close(modulated_deform_conv2d(*case, *settings), loop_convolution(*case, *settings))


@pytest.mark.parametrize('name', SETTINGS)
def test_no_offset_and_full_mask_is_a_convolution(name):
    stride, padding, dilation, groups, _ = SETTINGS[name]
    inputs, offset, mask, weight, bias = make_case(*SETTINGS[name], size=(9, 11))
    result = modulated_deform_conv2d(inputs, 0 * offset, torch.ones_like(mask), weight, bias, *SETTINGS[name])
    torch.testing.assert_close(result, F.conv2d(inputs, weight, bias, stride, padding, dilation, groups))


def test_mmcv_gradients_are_numerically_right():
    # mmcv's autograd function hands its own gradient tensors to the backward operator.
    from mmcv.ops import modulated_deform_conv2d as mmcv_convolution

    for name in ('plain', 'everything'):
        case = [x.requires_grad_() for x in make_case(*SETTINGS[name], size=(3, 4))]
        assert torch.autograd.gradcheck(lambda *x, name=name: mmcv_convolution(*x, *SETTINGS[name]), case)
        without_bias = lambda *x, name=name: mmcv_convolution(*x, None, *SETTINGS[name])  # noqa: E731
        assert torch.autograd.gradcheck(without_bias, case[:4], fast_mode=True)


def test_mmcv_accepts_strided_inputs():
    from mmcv.ops import modulated_deform_conv2d as mmcv_convolution

    inputs, offset, mask, weight, bias = make_case(*SETTINGS['plain'])
    expected = modulated_deform_conv2d(inputs, offset, mask, weight, bias, *SETTINGS['plain'])
    # A crop of a wider map: rows are not adjacent in memory.
    offset, mask = (F.pad(x, (0, 3))[..., :-3] for x in (offset, mask))
    inputs = inputs.to(memory_format=torch.channels_last).requires_grad_()
    result = mmcv_convolution(inputs, offset, mask, weight, bias, *SETTINGS['plain'])
    torch.testing.assert_close(result, expected)
    result.sum().backward()
    assert inputs.grad.shape == inputs.shape


def test_positions_keep_their_precision_in_half():
    # With the eight bits of bfloat16, position 300.25 would be 300 and 301.25 would be 302.
    inputs = torch.arange(400.0).view(1, 1, 1, 400) / 400
    offset = torch.zeros(1, 2, 1, 400)
    offset[:, 1] = 0.25
    mask, weight = torch.ones(1, 1, 1, 400), torch.ones(1, 1, 1, 1)
    settings = ((1, 1), (0, 0), (1, 1), 1, 1)
    half = modulated_deform_conv2d(*(x.bfloat16() for x in (inputs, offset, mask, weight)), None, *settings)
    full = modulated_deform_conv2d(inputs, offset, mask, weight, None, *settings)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), full, atol=4e-3, rtol=0)


def test_resnet101_with_dcn_trains():
    from mmdet.models import ResNet

    torch.manual_seed(0)
    backbone = ResNet(
        depth=101,
        num_stages=4,
        out_indices=(3,),
        frozen_stages=1,
        norm_eval=True,
        style='caffe',
        norm_cfg=dict(type='BN2d', requires_grad=False),
        dcn=dict(type='DCNv2', deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, False, True, True),
    )
    backbone.train()
    (features,) = backbone(torch.randn(2, 3, 32, 64))
    assert features.shape == (2, 2048, 1, 2)
    features.sum().backward()
    convolution = backbone.layer4[2].conv2
    assert type(convolution).__name__ == 'ModulatedDeformConv2dPack'
    for parameter in (convolution.weight, convolution.conv_offset.weight, backbone.layer3[0].conv2.weight):
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().sum() > 0


MISFITS = {
    'an image more than offsets': (0, torch.ones(3, 4, 9, 11), r'offset.*must be \(3, 18, 9, 11\)'),
    'inputs without a batch': (0, torch.ones(4, 9, 11), r'need four axes.*inputs \(4, 9, 11\)'),
    'no image': (0, torch.ones(0, 4, 9, 11), r'none empty: inputs \(0, 4, 9, 11\)'),
    'inputs of other channels': (0, torch.ones(2, 6, 9, 11), r'weight.*must be \(6, 6, 3, 3\)'),
    'integer inputs': (0, torch.ones(2, 4, 9, 11).int(), r'floating types, got torch.int32'),
    'offsets of another size': (1, torch.ones(2, 18, 9, 10), r'offset.*must be \(2, 18, 9, 11\).*\(2, 18, 9, 10\)'),
    'offsets of another kernel': (1, torch.ones(2, 50, 9, 11), r'offset.*must be \(2, 18, 9, 11\)'),
    'a mask of another batch': (2, torch.ones(1, 9, 9, 11), r'mask.*must be \(2, 9, 9, 11\)'),
    'a mask of another type': (2, torch.ones(2, 9, 9, 11).double(), r'mask is torch.float64 on cpu'),
    'a weight of another type': (3, torch.ones(6, 4, 3, 3).bfloat16(), r'weight is torch.bfloat16 on cpu'),
    'a weight elsewhere': (3, torch.ones(6, 4, 3, 3, device='meta'), r'weight is torch.float32 on meta'),
    'a bias for other outputs': (4, torch.ones(5), r'bias.*must be \(6,\)'),
}


@pytest.mark.parametrize('name', MISFITS)
def test_arguments_that_do_not_fit_are_refused(name):
    position, tensor, message = MISFITS[name]
    case = [torch.ones(2, 4, 9, 11), torch.ones(2, 18, 9, 11), torch.ones(2, 9, 9, 11), torch.ones(6, 4, 3, 3), None]
    settings = (1, 1), (1, 1), (1, 1), 1, 1
    assert modulated_deform_conv2d(*case, *settings).shape == (2, 6, 9, 11)
    case[position] = tensor
    with pytest.raises(ValueError, match=message):
        modulated_deform_conv2d(*case, *settings)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (((0, 1), (1, 1), (1, 1), 1, 1), r'must be positive.*stride \(0, 1\)'),
        (((1, 1), (1, 1), (1, -1), 1, 1), r'must be positive.*dilation \(1, -1\)'),
        (((1, 1), (-1, 1), (1, 1), 1, 1), r'padding \(-1, 1\)'),
        (((2, 1), (1, 1), (1, 1), 1, 1), r'offset.*must be \(2, 18, 5, 11\)'),
        (((1, 1), (1, 1), (1, 1), 3, 1), r'4 channels and 6 outputs do not divide by groups 3'),
        (((1, 1), (1, 1), (1, 1), 1, 3), r'deform_groups 3'),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    case = [torch.ones(2, 4, 9, 11), torch.ones(2, 18, 9, 11), torch.ones(2, 9, 9, 11), torch.ones(6, 4, 3, 3), None]
    with pytest.raises(ValueError, match=message):
        modulated_deform_conv2d(*case, *settings)
