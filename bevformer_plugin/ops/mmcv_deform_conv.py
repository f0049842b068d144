"""Modulated deformable convolution through mmcv's compiled operator, for GPUs without Triton."""

import torch
from torch import Tensor

from .deform_conv_arguments import DeformConvSettings
from .mmcv_finder import is_compiled


def supports(device: str, dtype: torch.dtype) -> bool:
    """Tell whether mmcv can compute: on CUDA GPUs if mmcv is compiled, in float32 and float64.

    mmcv has no kernel for bfloat16, and its kernel for float16 computes positions in it.
    """
    return device == 'cuda' and dtype in (torch.float32, torch.float64) and is_compiled()


def forward(
    inputs: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None, settings: DeformConvSettings
) -> Tensor:
    """Compute the output (B, O, Ho, Wo).

    The arguments are those of :func:`.modulated_deform_conv.modulated_deform_conv2d`.
    """
    from mmcv.ops.modulated_deform_conv import ext_module

    image, of_dtype, mask, weight = _contiguous(inputs, offset, mask, weight)
    output = image.new_empty(len(image), len(weight), *offset.shape[2:])
    empty = image.new_empty(0)
    ext_module.modulated_deform_conv_forward(
        *(image, weight, empty if bias is None else bias.contiguous(), empty, of_dtype, mask, output, empty),
        **_keywords(weight, settings, bias is not None),
    )
    # The kernel skips samples outside and at NaN. Multiplying by 0 gives NaN for what is not finite, else 0.
    nan_or_zero = (_nan_or_zero(of_dtype) * mask).unflatten(1, (settings.deform_groups, -1)).sum(2)
    of_groups = _regroup(nan_or_zero, settings.groups, image.shape[1])
    return output + of_groups.repeat_interleave(len(weight) // settings.groups, 1)


def backward(
    grad_output: Tensor, inputs: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, settings: DeformConvSettings
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of inputs, offset, mask and weight."""
    from mmcv.ops.modulated_deform_conv import ext_module

    image, of_dtype, mask, weight, grad_output = _contiguous(inputs, offset, mask, weight, grad_output)
    grad_inputs, grad_offset, grad_mask, grad_weight = (
        torch.zeros_like(tensor) for tensor in (image, of_dtype, mask, weight)
    )
    empty = image.new_empty(0)
    ext_module.modulated_deform_conv_backward(
        *(image, weight, empty, empty, of_dtype, mask, empty),
        *(grad_inputs, grad_weight, empty, grad_offset, grad_mask, grad_output),
        **_keywords(weight, settings, False),
    )
    channels, taps = image.shape[1], weight.shape[2] * weight.shape[3]
    of_outputs = (0 * grad_output).unflatten(1, (settings.groups, -1)).sum(2)
    of_gradient = _regroup(of_outputs, settings.deform_groups, channels).repeat_interleave(taps, 1)
    of_offset = _nan_or_zero(of_dtype)
    grad_mask += of_offset + of_gradient
    grad_offset += (of_offset + of_gradient + 0 * mask).repeat_interleave(2, 1)
    of_taps = of_offset.sum((0, 2, 3)).unflatten(0, (settings.deform_groups, taps))
    of_weight = of_taps.repeat_interleave(channels // settings.deform_groups, 0)  # CxT
    grad_weight += of_weight.view(settings.groups, *weight.shape[1:]).repeat_interleave(
        len(weight) // settings.groups, 0
    )
    return grad_inputs, grad_offset.to(offset.dtype), grad_mask, grad_weight


def _contiguous(inputs: Tensor, offset: Tensor, *others: Tensor) -> list[Tensor]:
    """Lay tensors out as the kernels want them, the offset in the type of the others."""
    return [tensor.contiguous() for tensor in (inputs, offset.to(inputs.dtype), *others)]


def _keywords(weight: Tensor, settings: DeformConvSettings, with_bias: bool) -> dict[str, int | bool]:
    """Name the settings as mmcv does."""
    names = ('stride', 'pad', 'dilation', 'kernel')
    pairs = (settings.stride, settings.padding, settings.dilation, tuple(weight.shape[2:]))
    return {
        **{f'{name}_h': height for name, (height, _) in zip(names, pairs, strict=True)},
        **{f'{name}_w': width for name, (_, width) in zip(names, pairs, strict=True)},
        'group': settings.groups,
        'deformable_group': settings.deform_groups,
        'with_bias': with_bias,
    }


def _nan_or_zero(offset: Tensor) -> Tensor:
    """Return (B, DG * T, Ho, Wo), NaN where an offset is not finite, else 0."""
    return (0 * offset.unflatten(1, (-1, 2))).sum(2)


def _regroup(of_groups: Tensor, groups: int, channels: int) -> Tensor:
    """Turn 0 or NaN (B, G, Ho, Wo) of groups of channels into (B, groups, Ho, Wo), those of another division."""
    of_channels = of_groups.repeat_interleave(channels // of_groups.shape[1], 1)
    return of_channels.unflatten(1, (groups, -1)).sum(2)
