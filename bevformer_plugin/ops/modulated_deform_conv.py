"""Modulated deformable convolution (DCNv2, arXiv 1811.11168).

It is one operator of torch, ``bevformer_plugin::modulated_deform_conv``, with the same backends as deformable
attention: C++ for CPUs, Triton for GPUs, mmcv's where it is compiled, and the definition in PyTorch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from .backends import DEFORM_CONV
from .deform_conv_arguments import DeformConvSettings, Pair, check_deform_conv


def modulated_deform_conv2d(
    inputs: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    deform_groups: int,
) -> Tensor:
    """Convolve with every kernel tap moved by its offset and scaled by its mask.

    Positions are computed in float32 at least, since half precision would be off by pixels on wide maps. Under
    autocast everything but the offset is cast as for a convolution. The backward pass samples once more instead of
    keeping what was sampled. All backends agree on what is finite: if the offset or the mask of a tap is not finite,
    or a value around its position, neither is the output of its pixel. In the backward pass the gradients of such an
    offset, of its mask, and of the weights that see it are not finite either, while the image gets no gradient from
    it.

    Args:
        inputs: (B, C, H, W).
        offset: (B, deform_groups * K * 2, Ho, Wo), (y, x) in pixels for each of the K kernel taps, of any floating
            type.
        mask: (B, deform_groups * K, Ho, Wo).
        weight: (O, C / groups, kh, kw).
        bias: (O,) or None.

    Returns:
        (B, O, Ho, Wo), with channels last in memory if the inputs are.

    Raises:
        ValueError: if shapes, types or devices do not fit each other; the message names them.
    """
    settings = DeformConvSettings(stride, padding, dilation, groups, deform_groups)
    inputs, mask, weight, bias = _cast_under_autocast(inputs, mask, weight, bias)
    check_deform_conv(inputs, offset, mask, weight, bias, settings)
    return _operator(inputs, offset, mask, weight, bias, stride, padding, dilation, groups, deform_groups)


def _cast_under_autocast(
    inputs: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Cast what autocast casts for a convolution; positions would be off by pixels in half precision."""
    device = inputs.device.type
    if not torch.is_autocast_enabled(device):
        return inputs, mask, weight, bias
    dtype = torch.get_autocast_dtype(device)
    return inputs.to(dtype), mask.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)


@torch.library.custom_op('bevformer_plugin::modulated_deform_conv', mutates_args=())
def _operator(
    inputs: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    deform_groups: int,
) -> Tensor:
    settings = _settings(stride, padding, dilation, groups, deform_groups)
    check_deform_conv(inputs, offset, mask, weight, bias, settings)
    with torch.autocast(inputs.device.type, enabled=False):
        output = DEFORM_CONV.backend_for(inputs).forward(inputs, offset, mask, weight, bias, settings)
    return _laid_out_like(output, inputs)


@torch.library.custom_op('bevformer_plugin::modulated_deform_conv_backward', mutates_args=())
def _operator_backward(
    grad_output: Tensor,
    inputs: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    deform_groups: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    settings = _settings(stride, padding, dilation, groups, deform_groups)
    check_deform_conv(inputs, offset, mask, weight, None, settings)
    shape = _output_shape(inputs, weight, settings)
    if (tuple(grad_output.shape), grad_output.dtype, grad_output.device) != (shape, inputs.dtype, inputs.device):
        raise ValueError(
            f'grad_output of the modulated deformable convolution must be {shape} in {inputs.dtype} on '
            f'{inputs.device}, got {tuple(grad_output.shape)} in {grad_output.dtype} on {grad_output.device}'
        )
    with torch.autocast(inputs.device.type, enabled=False):
        grads = DEFORM_CONV.backend_for(inputs).backward(grad_output, inputs, offset, mask, weight, settings)
    grad_inputs, grad_offset, grad_mask, grad_weight = map(_laid_out_like, grads, (inputs, offset, mask, weight))
    return grad_inputs, grad_offset, grad_mask, grad_weight


@_operator.register_fake
def _(
    inputs: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    deform_groups: int,
) -> Tensor:
    shape = _output_shape(inputs, weight, _settings(stride, padding, dilation, groups, deform_groups))
    return _empty_like(inputs, shape)


@_operator_backward.register_fake
def _(
    grad_output: Tensor,
    inputs: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    deform_groups: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        _empty_like(inputs, inputs.shape),
        _empty_like(offset, offset.shape),
        _empty_like(mask, mask.shape),
        _empty_like(weight, weight.shape),
    )


def _settings(
    stride: list[int], padding: list[int], dilation: list[int], groups: int, deform_groups: int
) -> DeformConvSettings:
    """Read the settings as the operator of torch is given them.

    Raises:
        ValueError: if a list has not two entries.
    """
    for name, pair in (('stride', stride), ('padding', padding), ('dilation', dilation)):
        if len(pair) != 2:
            raise ValueError(f'{name} of the modulated deformable convolution must be two numbers, got {list(pair)}')
    return DeformConvSettings(
        (stride[0], stride[1]), (padding[0], padding[1]), (dilation[0], dilation[1]), groups, deform_groups
    )


def _output_shape(inputs: Tensor, weight: Tensor, settings: DeformConvSettings) -> tuple[int, int, int, int]:
    return len(inputs), len(weight), *settings.output_size(inputs.shape, weight.shape)


def _empty_like(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """Return an empty tensor of the same type, channels last if the given one is, else contiguous."""
    last = tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()
    memory_format = torch.channels_last if last else torch.contiguous_format
    return torch.empty(shape, dtype=tensor.dtype, device=tensor.device, memory_format=memory_format)


def _laid_out_like(result: Tensor, tensor: Tensor) -> Tensor:
    """Lay a result out as :func:`_empty_like` promises it, and do not give the same tensor back."""
    promised = _empty_like(tensor, result.shape)
    return result if result.stride() == promised.stride() else promised.copy_(result)


def _save_inputs(ctx: FunctionCtx, inputs: tuple, output: Tensor) -> None:
    *tensors, _bias, stride, padding, dilation, groups, deform_groups = inputs
    ctx.save_for_backward(*tensors)
    ctx.settings = stride, padding, dilation, groups, deform_groups  # pyright: ignore[reportAttributeAccessIssue]


def _gradients(ctx: FunctionCtx, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    saved, settings = ctx.saved_tensors, ctx.settings  # pyright: ignore[reportAttributeAccessIssue]
    grads = _operator_backward(grad_output, *saved, *settings)
    needs_bias = ctx.needs_input_grad[4]  # pyright: ignore[reportAttributeAccessIssue]
    return *grads, grad_output.sum((0, 2, 3)) if needs_bias else None, None, None, None, None, None


_operator.register_autograd(_gradients, setup_context=_save_inputs)


def _under_autocast(
    inputs: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    deform_groups: int,
) -> Tensor:
    """Call the operator as autocast has it called."""
    inputs, mask, weight, bias = _cast_under_autocast(inputs, mask, weight, bias)
    with torch.autocast(inputs.device.type, enabled=False):
        return _operator(inputs, offset, mask, weight, bias, stride, padding, dilation, groups, deform_groups)


# ``register_autocast`` would cast the offset as well.
_library = torch.library.Library('bevformer_plugin', 'FRAGMENT')
for _device in ('CPU', 'CUDA'):
    _library.impl('modulated_deform_conv', _under_autocast, f'Autocast{_device}')
