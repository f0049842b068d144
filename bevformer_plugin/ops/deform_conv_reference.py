"""Modulated deformable convolution in plain PyTorch, for every device and floating type: its definition."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .deform_conv_arguments import DeformConvSettings


def forward(
    inputs: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None, settings: DeformConvSettings
) -> Tensor:
    """Compute the output (B, O, Ho, Wo), image by image, to hold only one image's columns in memory.

    The arguments are those of :func:`.modulated_deform_conv.modulated_deform_conv2d`.
    """
    outputs = []
    for image in zip(inputs.split(1), offset.split(1), mask.split(1), strict=True):
        columns = _Image(*image, weight, settings).columns()
        outputs.append(_multiply(columns, weight, bias, settings, image[1]))
    return torch.cat(outputs)


def backward(
    grad_output: Tensor, inputs: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, settings: DeformConvSettings
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of inputs, offset, mask and weight, image by image.

    PyTorch records nothing inside of an operator, so this is written out.
    """
    of_images, grad_weight = [], torch.zeros_like(weight)
    for *image, grad in zip(inputs.split(1), offset.split(1), mask.split(1), grad_output.split(1), strict=True):
        *grads, of_weight = _image_gradients(grad, image[0], image[1], image[2], weight, settings)
        of_images.append(grads)
        grad_weight += of_weight
    grad_inputs, grad_offset, grad_mask = (torch.cat(grads) for grads in zip(*of_images, strict=True))
    return grad_inputs, grad_offset, grad_mask, grad_weight


def _image_gradients(
    grad: Tensor, inputs: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, settings: DeformConvSettings
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of one image's inputs, offset, mask and of the weight."""
    image = _Image(inputs, offset, mask, weight, settings)
    grad = grad.reshape(settings.groups, len(weight) // settings.groups, -1)
    columns = image.columns().reshape(settings.groups, -1, grad.shape[2])
    grad_weight = torch.matmul(grad, columns.transpose(1, 2)).view_as(weight)
    matrices = weight.reshape(settings.groups, grad.shape[1], -1).transpose(1, 2)
    grad_columns = torch.matmul(matrices, grad).view_as(image.sampled)  # DG x C/DG x T x Ho*Wo
    grad_mask = (grad_columns * (image.sampled + image.nan_or_zero)).sum(1).view_as(mask)
    grad_sampled = grad_columns * image.factor
    grad_maps, grad_locations = torch.ops.aten.grid_sampler_2d_backward(
        grad_sampled.to(image.locations.dtype).view(*grad_sampled.shape[:2], *image.locations.shape[1:3]),
        *(image.maps, image.locations, 0, 0, False, [True, True]),  # bilinear, zeros outside
    )
    size = grad_locations.new_tensor([2 / inputs.shape[3], 2 / inputs.shape[2]])
    grad_offset = (grad_locations * size).flip(-1)  # DG x T*Ho x Wo x (y, x)
    grad_offset = grad_offset.unflatten(1, (-1, offset.shape[2])).permute(0, 1, 4, 2, 3).reshape(offset.shape)
    # The sum is 0, or NaN if any of it is not finite: also far outside of the image, where nothing is sampled.
    nan_or_zero = (0 * grad_sampled.sum(1)).view_as(mask) + image.nan_or_zero.view_as(mask)
    grad_offset = grad_offset + nan_or_zero.repeat_interleave(2, 1)
    return grad_maps.view_as(inputs).to(inputs.dtype), grad_offset.to(offset.dtype), grad_mask, grad_weight


def convolve_whole_batch(
    inputs: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None, settings: DeformConvSettings
) -> Tensor:
    """Convolve all images at once, by ordinary operators alone, with the sampled columns of all of them in memory.

    Arguments and result are those of :func:`.modulated_deform_conv.modulated_deform_conv2d`, and are not checked.
    Unlike there, the result for arguments that are not finite is not defined.
    """
    locations = _locations(*_positions(offset, weight, settings), inputs)
    sampled = _sample(_maps(inputs, locations, settings), locations, weight).to(inputs.dtype)
    return _multiply(sampled * _columns_of(mask, settings), weight, bias, settings, offset)


class _Image:
    """What is sampled of one image, with NaN for all that an offset or mask that is not finite takes part in.

    Args:
        inputs: (1, C, H, W).
        offset: (1, DG * T * 2, Ho, Wo).
        mask: (1, DG * T, Ho, Wo).
        weight: (O, C / G, kh, kw).
        settings: of the convolution.

    Attributes:
        maps: (DG, C / DG, H, W).
        locations: (DG, T * Ho, Wo, 2) as ``grid_sample`` wants them.
        sampled: (DG, C / DG, T, Ho * Wo).
        factor: (DG, 1, T, Ho * Wo), the mask.
        nan_or_zero: (DG, 1, T, Ho * Wo), NaN where an offset is not finite.
    """

    def __init__(
        self, inputs: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, settings: DeformConvSettings
    ) -> None:
        finite = offset.unflatten(1, (-1, 2)).isfinite().all(2)
        # ``grid_sample`` may treat what is far outside differently, so it gets something outside but near.
        y, x = (
            torch.where(finite.view_as(position), position.clamp(-2, size + 1), -2.0)
            for position, size in zip(_positions(offset, weight, settings), inputs.shape[2:], strict=True)
        )
        self.locations = _locations(y, x, inputs)
        self.maps = _maps(inputs, self.locations, settings)
        self.sampled = _sample(self.maps, self.locations, weight).to(inputs.dtype)
        self.factor = _columns_of(mask, settings)
        self.nan_or_zero = torch.where(_columns_of(finite, settings), 0.0, torch.nan).to(inputs.dtype)

    def columns(self) -> Tensor:
        """Return what is sampled, scaled by the mask."""
        return torch.addcmul(self.nan_or_zero * self.factor, self.sampled, self.factor)


def _positions(offset: Tensor, weight: Tensor, settings: DeformConvSettings) -> tuple[Tensor, Tensor]:
    """Return y and x (B * DG, T, Ho, Wo) in pixels that the taps sample, in float32 at least."""
    kernel_h, kernel_w = weight.shape[2:]
    out_h, out_w = offset.shape[2:]

    def tap_positions(size: int, out: int, axis: int) -> Tensor:
        start = torch.arange(out, device=offset.device) * settings.stride[axis] - settings.padding[axis]
        tap = torch.arange(size, device=offset.device) * settings.dilation[axis]
        return tap[:, None] + start[None]  # kernel x out

    taps = kernel_h * kernel_w
    rows = tap_positions(kernel_h, out_h, 0)[:, None, :, None].expand(kernel_h, kernel_w, out_h, out_w)
    cols = tap_positions(kernel_w, out_w, 1)[None, :, None, :].expand(kernel_h, kernel_w, out_h, out_w)
    offset = offset.reshape(len(offset) * settings.deform_groups, taps, 2, out_h, out_w)
    if offset.dtype != torch.float64:
        offset = offset.float()
    return rows.reshape(taps, out_h, out_w) + offset[:, :, 0], cols.reshape(taps, out_h, out_w) + offset[:, :, 1]


def _columns_of(mask: Tensor, settings: DeformConvSettings) -> Tensor:
    """Lay (B, DG * T, Ho, Wo) out as factors (B * DG, 1, T, Ho * Wo) of the sampled columns."""
    return mask.reshape(len(mask) * settings.deform_groups, 1, -1, mask.shape[2] * mask.shape[3])


def _locations(y: Tensor, x: Tensor, inputs: Tensor) -> Tensor:
    """Turn positions (B * DG, T, Ho, Wo) in pixels into (B * DG, T * Ho, Wo, 2) as ``grid_sample`` wants them."""
    height, width = inputs.shape[2:]
    return torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1).flatten(1, 2)


def _maps(inputs: Tensor, locations: Tensor, settings: DeformConvSettings) -> Tensor:
    """Divide images (B, C, H, W) into maps (B * DG, C / DG, H, W) to sample, in the type of the locations."""
    batch, channels, height, width = inputs.shape
    groups = settings.deform_groups
    return inputs.reshape(batch * groups, channels // groups, height, width).to(locations.dtype)


def _sample(maps: Tensor, locations: Tensor, weight: Tensor) -> Tensor:
    """Sample maps (B * DG, C / DG, H, W), to (B * DG, C / DG, T, Ho * Wo)."""
    sampled = F.grid_sample(maps, locations, mode='bilinear', padding_mode='zeros', align_corners=False)
    return sampled.reshape(*sampled.shape[:2], weight.shape[2] * weight.shape[3], -1)


def _multiply(
    columns: Tensor, weight: Tensor, bias: Tensor | None, settings: DeformConvSettings, offset: Tensor
) -> Tensor:
    """Multiply the columns with the weights; the offset tells the shape of the output."""
    batch, _, out_h, out_w = offset.shape
    columns = columns.reshape(batch, settings.groups, -1, out_h * out_w)  # B x G x (C/G * T) x HoWo
    output = torch.matmul(weight.reshape(settings.groups, len(weight) // settings.groups, -1), columns)
    output = output.view(batch, len(weight), out_h, out_w)
    return output if bias is None else output + bias.view(1, -1, 1, 1)
