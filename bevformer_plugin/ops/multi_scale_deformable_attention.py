"""Multi-scale deformable attention (Deformable DETR, equation 3; the sampling behind BEVFormer's equation 2).

It is one operator of torch, ``bevformer_plugin::deformable_attention``, over maps that each have a list of queries of
any length: TSA and the decoder have one list per sample, SCA one per sample and camera.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from . import reference
from .attention_arguments import check_arguments, level_shapes
from .backends import ATTENTION

# CUDA graphs of ``torch.compile`` stop before the operators and begin anew behind them: what a graph takes must be on
# the GPU, and the spatial shapes are on the CPU. Before torch 2.8 there is no such tag, nor are there such graphs.
_OUTSIDE_OF_GRAPHS: dict[str, Any] = (
    {'tags': (torch.Tag.cudagraph_unsafe,)} if hasattr(torch.Tag, 'cudagraph_unsafe') else {}
)


def multi_scale_deformable_attention(
    value: Tensor, spatial_shapes: Tensor, sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """Sample every level at every location, bilinearly with zeros outside, and sum with the attention weights.

    Inputs of different types are cast to the widest of them, and under autocast to float32. All backends agree on what
    is finite: if the location or the weight of a sample is not finite, or a value around its location, neither is the
    output of its query and head. In the backward pass the gradients of such a location and of its weight are not
    finite either, while the values get no gradient from it, since it is unknown which values it refers to.

    Args:
        value: (B, S, heads, C) with S the sum of h * w over the levels.
        spatial_shapes: (L, 2) positive integers (h, w) of each level; reading them from a GPU waits for it.
        sampling_locations: (B, Q, heads, L, P, 2) in (x, y), fractions of the level's width and height.
        attention_weights: (B, Q, heads, L, P).

    Returns:
        (B, Q, heads * C).

    Raises:
        ValueError: if shapes, types or devices do not belong together; the message names them.
    """
    check_arguments(value, spatial_shapes, sampling_locations, attention_weights, None)
    batch, queries = sampling_locations.shape[:2]
    lengths = torch.full((batch,), queries, dtype=torch.int64, device=value.device)
    output = ragged_deformable_attention(
        value, spatial_shapes, sampling_locations.flatten(0, 1), attention_weights.flatten(0, 1), lengths
    )
    return output.unflatten(0, (batch, queries))


def ragged_deformable_attention(
    value: Tensor, spatial_shapes: Tensor, sampling_locations: Tensor, attention_weights: Tensor, lengths: Tensor
) -> Tensor:
    """Compute multi-scale deformable attention over maps that have different numbers of queries.

    Args:
        value: (M, S, heads, C), M maps of L levels.
        spatial_shapes: (L, 2) positive integers.
        sampling_locations: (R, heads, L, P, 2), the lists of all maps one after another.
        attention_weights: (R, heads, L, P).
        lengths: (M,) int64 that sum to R, on the CPU or the device of the other tensors. The sum is checked if that
            does not wait for a GPU; for a wrong sum the Triton backend on a GPU reads no memory of others.

    Returns:
        (R, heads * C).

    Raises:
        ValueError: if shapes, types or devices do not belong together; the message names them.
    """
    check_arguments(value, spatial_shapes, sampling_locations, attention_weights, lengths)
    dtype = torch.promote_types(torch.promote_types(value.dtype, sampling_locations.dtype), attention_weights.dtype)
    if torch.is_autocast_enabled(value.device.type):
        dtype = torch.promote_types(dtype, torch.float32)
    inputs = value.to(dtype), spatial_shapes, sampling_locations.to(dtype), attention_weights.to(dtype), lengths
    if not torch.compiler.is_compiling() and ATTENTION.name_for(inputs[0]) == 'reference':
        # Plain autograd keeps what the backward pass needs, so this backend need not run its forward pass twice.
        return reference.forward(inputs[0], level_shapes(*inputs[:2]), *inputs[2:])
    return _operator(*inputs)


def _checked_shapes(
    value: Tensor, spatial_shapes: Tensor, sampling_locations: Tensor, attention_weights: Tensor, lengths: Tensor
) -> list[list[int]]:
    """Check all arguments, and read the spatial shapes as numbers; the backends check the sum of the lengths.

    Raises:
        ValueError: if the arguments do not belong together, or value, locations and weights differ in type.
    """
    check_arguments(value, spatial_shapes, sampling_locations, attention_weights, lengths)
    dtypes = [tensor.dtype for tensor in (value, sampling_locations, attention_weights)]
    if len(set(dtypes)) > 1:
        raise ValueError(f'value, sampling_locations and attention_weights must be of one type here, got {dtypes}')
    return level_shapes(value, spatial_shapes)


@torch.library.custom_op('bevformer_plugin::deformable_attention', mutates_args=(), **_OUTSIDE_OF_GRAPHS)
def _operator(
    value: Tensor, spatial_shapes: Tensor, sampling_locations: Tensor, attention_weights: Tensor, lengths: Tensor
) -> Tensor:
    shapes = _checked_shapes(value, spatial_shapes, sampling_locations, attention_weights, lengths)
    output = ATTENTION.backend_for(value).forward(value, shapes, sampling_locations, attention_weights, lengths)
    return output.contiguous()  # as the fake implementation promises


@torch.library.custom_op('bevformer_plugin::deformable_attention_backward', mutates_args=(), **_OUTSIDE_OF_GRAPHS)
def _operator_backward(
    grad_output: Tensor,
    value: Tensor,
    spatial_shapes: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    lengths: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    shapes = _checked_shapes(value, spatial_shapes, sampling_locations, attention_weights, lengths)
    wanted = (len(sampling_locations), value.shape[2] * value.shape[3]), value.dtype, value.device
    if (grad_output.shape, grad_output.dtype, grad_output.device) != wanted:
        raise ValueError(
            f'grad_output of deformable attention must be {wanted[0]} in {value.dtype} on {value.device}, got '
            f'{tuple(grad_output.shape)} in {grad_output.dtype} on {grad_output.device}'
        )
    grad_value, grad_locations, grad_weights = ATTENTION.backend_for(value).backward(
        grad_output, value, shapes, sampling_locations, attention_weights, lengths
    )
    return grad_value.contiguous(), grad_locations.contiguous(), grad_weights.contiguous()


@_operator.register_fake
def _(
    value: Tensor, spatial_shapes: Tensor, sampling_locations: Tensor, attention_weights: Tensor, lengths: Tensor
) -> Tensor:
    return value.new_empty(sampling_locations.shape[0], value.shape[2] * value.shape[3])


@_operator_backward.register_fake
def _(
    grad_output: Tensor,
    value: Tensor,
    spatial_shapes: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    lengths: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    locations, weights = sampling_locations, attention_weights
    return value.new_empty(value.shape), locations.new_empty(locations.shape), weights.new_empty(weights.shape)


def _save_inputs(ctx: FunctionCtx, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx: FunctionCtx, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]  # torch does not declare it
    grad_value, grad_locations, grad_weights = _operator_backward(grad_output, *saved)
    return grad_value, None, grad_locations, grad_weights, None


_operator.register_autograd(_gradients, setup_context=_save_inputs)
for _device in ('cpu', 'cuda'):
    _operator.register_autocast(_device, torch.float32)
