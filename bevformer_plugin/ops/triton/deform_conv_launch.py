"""The functions that launch the Triton kernels of modulated deformable convolution."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false, reportIndexIssue=false
# Triton is not installed beside torch for CPUs, and its types are then unknown.

from math import gcd

import torch
import triton
from torch import Tensor

from bevformer_plugin.ops.deform_conv_arguments import DeformConvSettings

from .deform_conv_kernels import convolution_kernel, input_gradient_kernel, weight_gradient_kernel

BLOCK_ROWS = 64
MOST_CHANNELS = 64  # of a block
MOST_OUTPUTS = 128
# With four warps, registers spill. With the three stages that are Triton's own choice, what is loaded ahead in float32
# for products in TF32 takes 241 KiB of shared memory, and sm_90 has 227.
OPTIONS = {'num_warps': 8, 'num_stages': 2}


def forward(
    inputs: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None, settings: DeformConvSettings
) -> Tensor:
    """Compute the output (B, O, Ho, Wo), channels last.

    The arguments are those of :func:`..modulated_deform_conv.modulated_deform_conv2d`.
    """
    image, offset, mask, matrix = _laid_out(inputs, offset, mask, weight)
    output = image.new_empty(*mask.shape[:3], len(weight))
    numbers, blocks = _numbers(image, mask, weight, settings), _blocks(weight, settings)
    outputs_per_group = len(weight) // settings.groups
    grid = (
        triton.cdiv(numbers['rows'], BLOCK_ROWS),
        triton.cdiv(outputs_per_group, blocks['BLOCK_OUTPUTS']),
        settings.groups,
    )
    with torch.cuda.device_of(inputs):
        convolution_kernel[grid](
            *(image, offset, mask, matrix, matrix if bias is None else bias, output),
            **numbers,
            HAS_BIAS=bias is not None,
            **blocks,
            **OPTIONS,
        )
    return output.permute(0, 3, 1, 2)


def backward(
    grad_output: Tensor, inputs: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, settings: DeformConvSettings
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of inputs, offset, mask and weight, channels last."""
    image, placed_offset, placed_mask, matrix = _laid_out(inputs, offset, mask, weight)
    grad = grad_output.permute(0, 2, 3, 1).contiguous()
    # Many samples add to one pixel, which half precision would round away.
    grad_image = torch.zeros_like(image, dtype=torch.float32)
    grad_offset, grad_mask = torch.empty_like(placed_offset), torch.empty_like(placed_mask)
    grad_matrix = torch.empty_like(matrix)
    numbers, blocks = _numbers(image, placed_mask, weight, settings), _blocks(weight, settings)
    taps = numbers['taps']
    channel_blocks = inputs.shape[1] // numbers['piece'] * triton.cdiv(numbers['piece'], blocks['BLOCK_CHANNELS'])
    output_blocks = triton.cdiv(numbers['outputs_per_group'], blocks['BLOCK_OUTPUTS'])
    sampled = (grad, image, placed_offset, placed_mask)
    with torch.cuda.device_of(inputs):
        input_gradient_kernel[triton.cdiv(numbers['rows'], BLOCK_ROWS), taps, settings.deform_groups](
            *sampled,
            *(matrix, grad_image, grad_offset, grad_mask),
            **numbers,
            **blocks,
            **OPTIONS,
        )
        weight_gradient_kernel[channel_blocks, taps, output_blocks](
            *sampled, grad_matrix, **numbers, **blocks, **OPTIONS
        )
    gradients = zip((grad_image, grad_offset, grad_mask, grad_matrix), (inputs, offset, mask, weight), strict=True)
    grad_inputs, grad_offset, grad_mask, grad_weight = (
        gradient.permute(0, 3, 1, 2).to(tensor.dtype) for gradient, tensor in gradients
    )
    return grad_inputs, grad_offset, grad_mask, grad_weight


def _laid_out(inputs: Tensor, offset: Tensor, mask: Tensor, weight: Tensor) -> list[Tensor]:
    """Lay all tensors out with channels last, offset and mask in float32."""
    return [tensor.permute(0, 2, 3, 1).contiguous() for tensor in (inputs, offset.float(), mask.float(), weight)]


def _numbers(image: Tensor, mask: Tensor, weight: Tensor, settings: DeformConvSettings) -> dict[str, int]:
    """Return the numbers that all kernels take, by name; image and mask are laid out with channels last."""
    per_group = weight.shape[1]
    channels = per_group * settings.groups
    return {
        **dict(zip(('height', 'width'), image.shape[1:3], strict=True)),
        **dict(zip(('out_h', 'out_w'), mask.shape[1:3], strict=True)),
        **dict(zip(('stride_h', 'stride_w'), settings.stride, strict=True)),
        **dict(zip(('pad_h', 'pad_w'), settings.padding, strict=True)),
        **dict(zip(('dilation_h', 'dilation_w'), settings.dilation, strict=True)),
        'kernel_w': weight.shape[3],
        'taps': weight.shape[2] * weight.shape[3],
        'deform_groups': settings.deform_groups,
        'rows': mask.shape[:3].numel(),
        'channels': channels,
        'outputs': len(weight),
        'per_group': per_group,
        'per_deform_group': channels // settings.deform_groups,
        'piece': gcd(per_group, channels // settings.deform_groups),
        'outputs_per_group': len(weight) // settings.groups,
    }


def _blocks(weight: Tensor, settings: DeformConvSettings) -> dict[str, int | str | bool]:
    """Return the sizes of blocks, at least the 16 that a product takes, and the precision, that of convolutions."""
    per_group = weight.shape[1]
    piece = gcd(per_group, per_group * settings.groups // settings.deform_groups)
    outputs = len(weight) // settings.groups
    tf32 = weight.dtype == torch.float32 and torch.backends.cudnn.allow_tf32
    return {
        'PRECISION': 'tf32' if tf32 else 'ieee',
        'WIDEN': weight.dtype == torch.bfloat16 and weight.device.type == 'cpu',
        'BLOCK_ROWS': BLOCK_ROWS,
        'BLOCK_CHANNELS': min(MOST_CHANNELS, max(16, triton.next_power_of_2(piece))),
        'BLOCK_OUTPUTS': min(MOST_OUTPUTS, max(16, triton.next_power_of_2(outputs))),
    }
