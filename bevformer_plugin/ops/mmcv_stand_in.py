"""A module that takes the place of mmcv's compiled ``mmcv._ext`` where none is installed.

mmcv-lite ships the Python of ``mmcv.ops`` but not the compiled module they import, and mmdet and mmdet3d import all of
them. The stand-in computes what BEVFormer needs (modulated deformable convolution, multi-scale deformable attention)
with PyTorch, forward and backward, under the calling convention of mmcv 2.1; any other operator can be imported but
not called.
"""

import importlib.util
import sys
import types
from collections.abc import Callable

import torch
from torch import Tensor

from .mmcv_operator import NAME
from .modulated_deform_conv import modulated_deform_conv2d
from .multi_scale_deformable_attention import multi_scale_deformable_attention


def install_stand_in() -> str:
    """Put the stand-in at ``mmcv._ext`` unless a compiled module is there.

    Returns:
        'compiled' or 'stand-in': what ``mmcv.ops`` uses.

    Raises:
        ImportError: if mmcv is not installed.
    """
    if NAME in sys.modules:
        return 'stand-in' if isinstance(sys.modules[NAME], _StandIn) else 'compiled'
    if importlib.util.find_spec('mmcv') is None:
        raise ImportError('mmcv is missing: pip install mmcv-lite==2.1.0, or a compiled mmcv 2.1')
    if importlib.util.find_spec(NAME) is not None:
        return 'compiled'
    sys.modules[NAME] = _StandIn(NAME)
    return 'stand-in'


class _StandIn(types.ModuleType):
    """Answers every operator name; those it cannot compute raise when they are called."""

    ms_deform_attn_forward: Callable
    ms_deform_attn_backward: Callable
    modulated_deform_conv_forward: Callable
    modulated_deform_conv_backward: Callable

    def __init__(self, name: str) -> None:
        super().__init__(name, 'PyTorch stand-in for the compiled operators of mmcv')
        self.__spec__ = importlib.util.spec_from_loader(name, loader=None)
        self.ms_deform_attn_forward = _ms_deform_attn_forward
        self.ms_deform_attn_backward = _ms_deform_attn_backward
        self.modulated_deform_conv_forward = _modulated_deform_conv_forward
        self.modulated_deform_conv_backward = _modulated_deform_conv_backward

    def __getattr__(self, name: str) -> Callable:
        if name.startswith('__'):
            raise AttributeError(name)

        def missing(*_args: object, **_kwargs: object) -> None:
            raise NotImplementedError(
                f"mmcv's operator {name!r} needs the compiled mmcv, which is not installed. BEVFormer does without; "
                'for other models replace mmcv-lite by a compiled mmcv 2.1 (pip install mmcv==2.1.0)'
            )

        return missing


def _ms_deform_attn_forward(
    value: Tensor,
    spatial_shapes: Tensor,
    _level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    return multi_scale_deformable_attention(value, spatial_shapes, sampling_locations, attention_weights)


def _ms_deform_attn_backward(
    value: Tensor,
    spatial_shapes: Tensor,
    _level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_locations: Tensor,
    grad_attention_weights: Tensor,
    im2col_step: int,
) -> None:
    _write_gradients(
        lambda v, s, a: multi_scale_deformable_attention(v, spatial_shapes, s, a),
        [value, sampling_locations, attention_weights],
        grad_output,
        [grad_value, grad_sampling_locations, grad_attention_weights],
    )


def _modulated_deform_conv_forward(
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor,
    _ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    _columns: Tensor,
    *,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
    kernel_h: int,
    kernel_w: int,
) -> None:
    output.copy_(
        modulated_deform_conv2d(
            inputs,
            offset,
            mask,
            weight,
            bias if with_bias else None,
            (stride_h, stride_w),
            (pad_h, pad_w),
            (dilation_h, dilation_w),
            group,
            deformable_group,
        )
    )


def _modulated_deform_conv_backward(
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor,
    _ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    _columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    *,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
    kernel_h: int,
    kernel_w: int,
) -> None:
    def convolve(inputs: Tensor, offset: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
        return modulated_deform_conv2d(
            inputs,
            offset,
            mask,
            weight,
            None,
            (stride_h, stride_w),
            (pad_h, pad_w),
            (dilation_h, dilation_w),
            group,
            deformable_group,
        )

    for b in range(len(inputs)):  # one image's columns in memory at a time; the weight's gradient adds up
        image = slice(b, b + 1)
        added = torch.empty_like(grad_weight)
        _write_gradients(
            convolve,
            [inputs[image], offset[image], mask[image], weight],
            grad_output[image],
            [grad_input[image], grad_offset[image], grad_mask[image], added],
        )
        grad_weight += added
    if with_bias:
        grad_bias.copy_(grad_output.sum(dim=(0, 2, 3)))


def _write_gradients(
    function: Callable[..., Tensor], inputs: list[Tensor], grad_output: Tensor, targets: list[Tensor]
) -> None:
    """Run ``function`` again with autograd and write its gradients into mmcv's preallocated tensors."""
    with torch.enable_grad():
        leaves = [x.detach().requires_grad_() for x in inputs]
        gradients = torch.autograd.grad(function(*leaves), leaves, grad_output)
    for target, gradient in zip(targets, gradients, strict=True):
        target.copy_(gradient)
