"""Modulated deformable convolution (DCNv2, arXiv 1811.11168) in plain PyTorch."""

import torch
from torch import Tensor
from torch.nn import functional as F

Pair = tuple[int, int]


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

    Images are convolved one by one, so that without gradients only the sampled columns of one image are in memory.
    Positions are computed in float32 at least, since half precision would be off by pixels on wide maps.

    Args:
        inputs: (B, C, H, W).
        offset: (B, deform_groups * K * 2, Ho, Wo), (y, x) in pixels for each of the K kernel taps.
        mask: (B, deform_groups * K, Ho, Wo).
        weight: (O, C / groups, kh, kw).
        bias: (O,) or None.

    Returns:
        (B, O, Ho, Wo).

    Raises:
        ValueError: if shapes, types or devices do not fit each other; the message names them.
    """
    _check_arguments(inputs, offset, mask, weight, bias, stride, padding, dilation, groups, deform_groups)
    return torch.cat(
        [
            convolve_whole_batch(
                inputs[b : b + 1],
                offset[b : b + 1],
                mask[b : b + 1],
                weight,
                bias,
                stride,
                padding,
                dilation,
                groups,
                deform_groups,
            )
            for b in range(len(inputs))
        ]
    )


def _check_arguments(
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
) -> None:
    """Refuse arguments of :func:`modulated_deform_conv2d` that do not fit each other."""
    tensors = {'inputs': inputs, 'offset': offset, 'mask': mask, 'weight': weight}
    if bias is not None:
        tensors['bias'] = bias
    given = ', '.join(f'{name} {tuple(tensor.shape)}' for name, tensor in tensors.items())
    if any(tensor.ndim != 4 for name, tensor in tensors.items() if name != 'bias') or 0 in (
        *inputs.shape,
        *weight.shape,
    ):
        raise ValueError(f'arguments of the modulated deformable convolution need four axes, none empty: {given}')
    settings = (
        f'stride {stride}, padding {padding}, dilation {dilation}, groups {groups}, deform_groups {deform_groups}'
    )
    if min(*stride, *dilation, groups, deform_groups) < 1 or min(padding) < 0:
        raise ValueError(
            f'settings of the modulated deformable convolution must be positive, padding not negative: {settings}'
        )
    batch, channels, *size = inputs.shape
    outputs, _, *kernel = weight.shape
    if channels % groups or outputs % groups or channels % deform_groups:
        raise ValueError(
            f'{channels} channels and {outputs} outputs do not divide by groups {groups} and '
            f'deform_groups {deform_groups}'
        )
    output_size = [
        (length + 2 * pad - dilate * (taps - 1) - 1) // step + 1
        for length, pad, dilate, taps, step in zip(size, padding, dilation, kernel, stride, strict=True)
    ]
    taps = deform_groups * kernel[0] * kernel[1]
    wanted = {
        'offset': (batch, 2 * taps, *output_size),
        'mask': (batch, taps, *output_size),
        'weight': (outputs, channels // groups, *kernel),
        'bias': (outputs,),
    }
    for name, shape in wanted.items():
        if name in tensors and tensors[name].shape != shape:
            raise ValueError(
                f'{name} of the modulated deformable convolution must be {shape}, got {given} with {settings}'
            )
    if not offset.is_floating_point() or not inputs.is_floating_point():
        raise ValueError(f'inputs and offset must be of floating types, got {inputs.dtype} and {offset.dtype}')
    for name, tensor in tensors.items():
        if tensor.device != inputs.device or (name != 'offset' and tensor.dtype != inputs.dtype):
            raise ValueError(
                f'inputs are {inputs.dtype} on {inputs.device}, {name} is {tensor.dtype} on {tensor.device}'
            )


def convolve_whole_batch(
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
    """Convolve all images at once, by ordinary operators alone, with the sampled columns of all of them in memory.

    Arguments and result are those of :func:`modulated_deform_conv2d`, and are not checked.
    """
    batch, channels, height, width = inputs.shape
    kernel_h, kernel_w = weight.shape[2:]
    taps = kernel_h * kernel_w
    out_h, out_w = offset.shape[2:]

    def tap_positions(size: int, out: int, axis: int) -> Tensor:
        start = torch.arange(out, device=inputs.device) * stride[axis] - padding[axis]
        tap = torch.arange(size, device=inputs.device) * dilation[axis]
        return tap[:, None] + start[None]  # kernel x out

    rows = tap_positions(kernel_h, out_h, 0)[:, None, :, None].expand(kernel_h, kernel_w, out_h, out_w)
    cols = tap_positions(kernel_w, out_w, 1)[None, :, None, :].expand(kernel_h, kernel_w, out_h, out_w)
    offset = offset.reshape(batch * deform_groups, taps, 2, out_h, out_w)
    if offset.dtype != torch.float64:
        offset = offset.float()
    y = rows.reshape(taps, out_h, out_w) + offset[:, :, 0]
    x = cols.reshape(taps, out_h, out_w) + offset[:, :, 1]
    locations = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)  # B*DG x T x Ho x Wo x 2
    columns = F.grid_sample(
        inputs.reshape(batch * deform_groups, channels // deform_groups, height, width).to(locations.dtype),
        locations.flatten(1, 2),
        mode='bilinear',
        padding_mode='zeros',
        align_corners=False,
    ).to(inputs.dtype)
    columns = columns.view(batch * deform_groups, -1, taps, out_h * out_w) * mask.reshape(
        batch * deform_groups, 1, taps, out_h * out_w
    )
    columns = columns.reshape(batch, groups, -1, out_h * out_w)  # B x G x (C/G * T) x HoWo
    output = torch.matmul(weight.reshape(groups, len(weight) // groups, -1), columns)
    output = output.view(batch, len(weight), out_h, out_w)
    return output if bias is None else output + bias.view(1, -1, 1, 1)
