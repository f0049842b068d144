"""Modulated deformable convolution in Triton for CUDA GPUs."""

from torch import Tensor

from bevformer_plugin.ops.deform_conv_arguments import DeformConvSettings

from .support import supports

__all__ = ['backward', 'forward', 'supports']


def forward(
    inputs: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None, settings: DeformConvSettings
) -> Tensor:
    """Compute the output (B, O, Ho, Wo), channels last.

    The arguments are those of :func:`..modulated_deform_conv.modulated_deform_conv2d`.
    """
    from .deform_conv_launch import forward as launch  # imported here, since only torch for GPUs installs Triton

    return launch(inputs, offset, mask, weight, bias, settings)


def backward(
    grad_output: Tensor, inputs: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, settings: DeformConvSettings
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of inputs, offset, mask and weight."""
    from .deform_conv_launch import backward as launch

    return launch(grad_output, inputs, offset, mask, weight, settings)
