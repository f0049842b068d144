"""Multi-scale deformable attention in Triton for CUDA GPUs."""

from torch import Tensor

from .support import supports

__all__ = ['backward', 'forward', 'supports']


def forward(
    value: Tensor, shapes: list[list[int]], sampling_locations: Tensor, attention_weights: Tensor, lengths: Tensor
) -> Tensor:
    """Compute the output (R, heads * C).

    The arguments are those of :func:`..multi_scale_deformable_attention.ragged_deformable_attention`, the shapes as
    numbers.
    """
    from .attention_launch import forward as launch  # imported here, since only torch for GPUs installs Triton

    return launch(value, shapes, sampling_locations, attention_weights, lengths)


def backward(
    grad_output: Tensor,
    value: Tensor,
    shapes: list[list[int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
    lengths: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of value, locations and weights."""
    from .attention_launch import backward as launch

    return launch(grad_output, value, shapes, sampling_locations, attention_weights, lengths)
