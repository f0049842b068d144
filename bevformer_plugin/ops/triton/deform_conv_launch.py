"""The functions that launch the Triton kernels of modulated deformable convolution."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false, reportIndexIssue=false
# Triton is not installed beside torch for CPUs, and its types are then unknown.

from functools import lru_cache
from math import gcd

import torch
import triton
from torch import Tensor

from bevformer_plugin.ops.deform_conv_arguments import DeformConvSettings

from .deform_conv_kernels import convolution_kernel, input_gradient_kernel, weight_gradient_kernel

BLOCK_ROWS = 64
MOST_CHANNELS = 64  # of a block: columns of 64 rows are 32 registers for each thread of four warps
MOST_OUTPUTS = 128


def forward(
    inputs: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None, settings: DeformConvSettings
) -> Tensor:
    """Compute the output (B, O, Ho, Wo), channels last.

    The arguments are those of :func:`..modulated_deform_conv.modulated_deform_conv2d`.
    """
    image, offset, mask, matrix = _laid_out(inputs, offset, mask, weight)
    output = image.new_empty(*mask.shape[:3], len(weight))
    numbers, blocks = _numbers(mask, weight, settings), _blocks(weight, settings)
    outputs_per_group = len(weight) // settings.groups
    grid = (
        triton.cdiv(numbers['rows'], BLOCK_ROWS),
        triton.cdiv(outputs_per_group, blocks['BLOCK_OUTPUTS']),
        settings.groups,
    )
    with torch.cuda.device_of(inputs):
        convolution_kernel[grid](
            *(image, offset, mask, matrix, matrix if bias is None else bias, output),
            _sizes(image, mask, weight, settings),
            **numbers,
            HAS_BIAS=bias is not None,
            **blocks,
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
    numbers, blocks = _numbers(placed_mask, weight, settings), _blocks(weight, settings)
    sizes, taps = _sizes(image, placed_mask, weight, settings), numbers['taps']
    channel_blocks = inputs.shape[1] // numbers['piece'] * triton.cdiv(numbers['piece'], blocks['BLOCK_CHANNELS'])
    output_blocks = triton.cdiv(numbers['outputs_per_group'], blocks['BLOCK_OUTPUTS'])
    sampled = (grad, image, placed_offset, placed_mask)
    with torch.cuda.device_of(inputs):
        input_gradient_kernel[triton.cdiv(numbers['rows'], BLOCK_ROWS), taps, settings.deform_groups](
            *sampled,
            *(matrix, grad_image, grad_offset, grad_mask, sizes),
            **numbers,
            deform_groups=settings.deform_groups,
            **blocks,
        )
        weight_gradient_kernel[channel_blocks, taps, output_blocks](*sampled, grad_matrix, sizes, **numbers, **blocks)
    gradients = zip((grad_image, grad_offset, grad_mask, grad_matrix), (inputs, offset, mask, weight), strict=True)
    grad_inputs, grad_offset, grad_mask, grad_weight = (
        gradient.permute(0, 3, 1, 2).to(tensor.dtype) for gradient, tensor in gradients
    )
    return grad_inputs, grad_offset, grad_mask, grad_weight


def _laid_out(inputs: Tensor, offset: Tensor, mask: Tensor, weight: Tensor) -> list[Tensor]:
    """Lay all tensors out with channels last, offset and mask in float32."""
    return [tensor.permute(0, 2, 3, 1).contiguous() for tensor in (inputs, offset.float(), mask.float(), weight)]


def _numbers(mask: Tensor, weight: Tensor, settings: DeformConvSettings) -> dict[str, int]:
    """Return the numbers that all kernels take, by name; the mask is laid out with channels last."""
    per_group = weight.shape[1]
    channels = per_group * settings.groups
    return {
        'rows': mask.shape[:3].numel(),
        'channels': channels,
        'outputs': len(weight),
        'taps': weight.shape[2] * weight.shape[3],
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


def _sizes(image: Tensor, mask: Tensor, weight: Tensor, settings: DeformConvSettings) -> Tensor:
    """Return what the kernels need to place a tap, on the device."""
    sizes = (
        *(*image.shape[1:3], *mask.shape[1:3], weight.shape[2] * weight.shape[3], weight.shape[3]),
        *(*settings.stride, *settings.padding, *settings.dilation, settings.deform_groups),
    )
    return _on_device(sizes, image.device)


@lru_cache(maxsize=256)
def _on_device(sizes: tuple[int, ...], device: torch.device) -> Tensor:
    """Return numbers as a tensor; cached, since copying them waits for the device."""
    return torch.tensor(sizes, dtype=torch.int32, device=device)
