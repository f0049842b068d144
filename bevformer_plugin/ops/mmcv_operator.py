"""Multi-scale deformable attention through mmcv's compiled operator, for GPUs without Triton."""

import torch
from torch import Tensor

from .attention_arguments import rows_of_maps
from .mmcv_finder import is_compiled


def supports(device: str, dtype: torch.dtype) -> bool:
    """On CUDA GPUs where mmcv is compiled; it has no kernel for bfloat16, and rounds float16 before it sums."""
    return device == 'cuda' and dtype in (torch.float32, torch.float64) and is_compiled()


def forward(
    value: Tensor, shapes: list[list[int]], sampling_locations: Tensor, attention_weights: Tensor, lengths: Tensor
) -> Tensor:
    """(R, heads * C); arguments as of :func:`.multi_scale_deformable_attention.ragged_deformable_attention`."""
    from mmcv.ops.multi_scale_deform_attn import ext_module

    levels = _levels(shapes, value.device)
    outputs = []
    for maps, *samples in _batches(lengths, value, sampling_locations, attention_weights):
        if samples[0].numel():  # the kernel does not take nothing
            output = ext_module.ms_deform_attn_forward(maps, *levels, *samples, im2col_step=len(maps))
            # The kernel skips what is outside or no place. Times 0, what is not finite becomes NaN and the rest 0.
            nothing = ((0 * samples[0]).sum(-1) * samples[1]).sum((-1, -2))
            outputs.append((output.unflatten(2, (maps.shape[2], -1)) + nothing[..., None]).flatten(2))
    return (
        torch.cat([output.flatten(0, 1) for output in outputs])
        if outputs
        else value.new_empty(0, value.shape[2] * value.shape[3])
    )


def backward(
    grad_output: Tensor,
    value: Tensor,
    shapes: list[list[int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
    lengths: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of value, locations and weights."""
    from mmcv.ops.multi_scale_deform_attn import ext_module

    levels, parts = _levels(shapes, value.device), []
    for maps, *samples, grad in _batches(lengths, value, sampling_locations, attention_weights, grad_output):
        grads = [torch.zeros_like(tensor) for tensor in (maps, *samples)]
        if grad.numel():
            ext_module.ms_deform_attn_backward(maps, *levels, *samples, grad, *grads, im2col_step=len(maps))
            heads = grad.unflatten(2, (maps.shape[2], -1))
            nothing = (0 * samples[0]).sum(-1) + (0 * heads).sum(-1)[..., None, None]
            grads[2] += nothing
            grads[1] += (nothing * samples[1]).unsqueeze(-1)
        parts.append((grads[0], *(tensor.flatten(0, 1) for tensor in grads[1:])))
    return tuple(torch.cat(grads) for grads in zip(*parts, strict=True))


def _levels(shapes: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Height and width of each level, and its first position."""
    sizes = torch.tensor(shapes)
    positions = sizes.prod(1)
    return sizes.to(device), (positions.cumsum(0) - positions).to(device)


def _batches(lengths: Tensor, value: Tensor, *rows: Tensor) -> list[tuple[Tensor, ...]]:
    """Maps with (B, Q, ...) of each tensor of rows: all together where lists are equally long, else map by map."""
    counts = rows_of_maps(lengths, len(rows[0]))
    value, rows = value.contiguous(), [tensor.contiguous() for tensor in rows]
    if len(set(counts)) == 1:
        return [(value, *(tensor.unflatten(0, (len(counts), -1)) for tensor in rows))]
    split = zip(*(tensor.split(counts) for tensor in rows), strict=True)
    return [(maps[None], *(tensor[None] for tensor in parts)) for maps, parts in zip(value, split, strict=True)]
