"""The stand-in for the module ``mmcv._ext`` if no compiled one is installed; :mod:`.mmcv_finder` lets Python find it.

It computes the two operators that BEVFormer needs (modulated deformable convolution and multi-scale deformable
attention) with PyTorch, forward and backward, under the calling convention of mmcv 2.1. Any other operator can be
imported but not called. The functions import the plugin when they are called, since mmdet3d may import this module
before the plugin.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def __getattr__(name: str) -> Callable:
    """Return an operator that can be imported, but raises NotImplementedError when it is called."""
    if name.startswith('__'):
        raise AttributeError(name)

    def missing(*_args: object, **_kwargs: object) -> None:
        raise NotImplementedError(
            f"mmcv's operator {name!r} needs the compiled mmcv, which is not installed. BEVFormer does without; "
            'for other models replace mmcv-lite by a compiled mmcv 2.1 (pip install mmcv==2.1.0)'
        )

    return missing


def get_compiler_version() -> str:
    """Return the line for mmcv's report on the environment."""
    return 'n/a (PyTorch stand-in of bevformer_plugin)'


get_compiling_cuda_version = get_compiler_version


def ms_deform_attn_forward(
    value: Tensor,
    spatial_shapes: Tensor,
    _level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Compute the output (B, Q, heads * C) of multi-scale deformable attention."""
    from bevformer_plugin.ops import multi_scale_deformable_attention

    return multi_scale_deformable_attention(value, spatial_shapes, sampling_locations, attention_weights)


def ms_deform_attn_backward(
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
    """Write the gradients of value, locations and weights into the last three tensors."""
    from bevformer_plugin.ops import multi_scale_deformable_attention

    _write_gradients(
        lambda v, s, a: multi_scale_deformable_attention(v, spatial_shapes, s, a),
        [value, sampling_locations, attention_weights],
        grad_output,
        [grad_value, grad_sampling_locations, grad_attention_weights],
    )


def modulated_deform_conv_forward(
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
    """Write the convolution into ``output``."""
    from bevformer_plugin.ops import modulated_deform_conv2d

    settings = (stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w), group, deformable_group
    with torch.autocast(inputs.device.type, enabled=False):  # mmcv has cast everything to the type of the offset
        output.copy_(modulated_deform_conv2d(inputs, offset, mask, weight, bias if with_bias else None, *settings))


def modulated_deform_conv_backward(
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
    """Write the gradients of input, weight, bias, offset and mask into the ``grad_`` tensors."""
    import bevformer_plugin.ops  # noqa: F401  # which registers the operator

    pairs = [stride_h, stride_w], [pad_h, pad_w], [dilation_h, dilation_w]
    grads = torch.ops.bevformer_plugin.modulated_deform_conv_backward(
        grad_output, inputs, offset, mask, weight, *pairs, group, deformable_group
    )
    for target, gradient in zip((grad_input, grad_offset, grad_mask, grad_weight), grads, strict=True):
        target.copy_(gradient)
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
