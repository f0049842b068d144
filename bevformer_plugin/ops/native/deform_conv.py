"""Modulated deformable convolution for CPUs: columns in C++, matrix products of PyTorch's libraries.

The columns of some hundred output pixels at a time are sampled into a buffer that stays in the cache, and multiplied
with the weights. The backward pass samples them once more, so that none of them is kept. Sums do not depend on the
number of threads, except where the library that multiplies divides its sums among them.
"""

import ctypes
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from bevformer_plugin.ops.deform_conv_arguments import DeformConvSettings

from .library import built_library, load_library

COLUMN_BYTES = 8 * 2**20  # of a block; smaller ones are sampled faster, but multiplied slower


def supports(device: str, dtype: torch.dtype) -> bool:
    """Tell whether it can compute: on CPUs if it can be built.

    Half precision is summed in float32, and computed in float32 unless the processor's library multiplies bfloat16.
    """
    return device == 'cpu' and dtype in (torch.float32, torch.bfloat16, torch.float16) and load_library() is not None


def forward(
    inputs: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None, settings: DeformConvSettings
) -> Tensor:
    """Compute the output (B, O, Ho, Wo), channels last.

    The arguments are those of :func:`..modulated_deform_conv.modulated_deform_conv2d`.
    """
    computed = _computed_dtype(inputs)
    columns = _Columns(inputs.to(computed), offset, mask, weight, settings)
    matrices = _matrices(weight.to(computed), settings.groups)
    output = columns.image.new_empty(columns.rows, len(weight))
    parts = output.chunk(settings.groups, 1)  # G of rows x O/G
    biases = [None] * settings.groups if bias is None else bias.to(computed).chunk(settings.groups)
    for first, last in columns.blocks():
        for part, block, matrix, shift in zip(parts, columns.sample(first, last), matrices, biases, strict=True):
            part[first:last] = _product(block, matrix, shift)
    shaped = output.view(len(inputs), *offset.shape[2:], len(weight)).permute(0, 3, 1, 2)
    return shaped.to(inputs.dtype)


def backward(
    grad_output: Tensor, inputs: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, settings: DeformConvSettings
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of inputs, offset, mask and weight, channels last."""
    computed = _computed_dtype(inputs)
    columns = _Columns(inputs.to(computed), offset, mask, weight, settings)
    matrices = _matrices(weight.to(computed), settings.groups)
    grads = _channels_last(grad_output.to(computed)).flatten(0, 2).chunk(settings.groups, 1)  # G of rows x O/G
    grad_matrices = torch.zeros_like(matrices, dtype=torch.float32)
    passed_on = _Gradients(columns)
    for first, last in columns.blocks():
        blocks = [grad[first:last] for grad in grads]
        for total, grad, block in zip(grad_matrices, blocks, columns.sample(first, last), strict=True):
            total += _product(grad.t(), block.t())
        products = [_product(grad, matrix.t()) for grad, matrix in zip(blocks, matrices, strict=True)]
        passed_on.add(products[0] if len(products) == 1 else torch.stack(products), first, last)
    grad_weight = grad_matrices.view(len(weight), *weight.shape[2:], weight.shape[1])
    gradients = (passed_on.image, passed_on.offset, passed_on.mask, grad_weight)
    grad_inputs, grad_offset, grad_mask, grad_weight = (
        gradient.permute(0, 3, 1, 2).to(tensor.dtype)
        for gradient, tensor in zip(gradients, (inputs, offset, mask, weight), strict=True)
    )
    return grad_inputs, grad_offset, grad_mask, grad_weight


class _Columns:
    """The columns of images: what the taps of the kernel sample, a block of output pixels (rows) at a time.

    Args:
        inputs: (B, C, H, W), float32 or bfloat16.
        offset: (B, deform_groups * taps * 2, Ho, Wo).
        mask: (B, deform_groups * taps, Ho, Wo).
        weight: (O, C / groups, kh, kw).
        settings: of the convolution.

    Attributes:
        image: (B, H, W, C).
        offset: (B, Ho, Wo, deform_groups * taps * 2), float32.
        mask: (B, Ho, Wo, deform_groups * taps), float32.
        rows: B * Ho * Wo.
        sizes: for the library, in the order of its struct.
    """

    def __init__(
        self, inputs: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, settings: DeformConvSettings
    ) -> None:
        self.image, self.offset, self.mask = map(_channels_last, (inputs, offset.float(), mask.float()))
        self.rows = self.mask.shape[:3].numel()
        self.sizes = torch.tensor(
            [
                *(*inputs.shape[1:], *offset.shape[2:], *weight.shape[2:]),
                *(*settings.stride, *settings.padding, *settings.dilation, settings.groups, settings.deform_groups),
            ]
        )
        self._shape = settings.groups, weight[0].numel()
        row = settings.groups * weight[0].numel() * self.image.element_size()
        self._rows_of_block = min(self.rows, max(1, COLUMN_BYTES // row))
        self._buffer = self.image.new_empty(self._rows_of_block * settings.groups * weight[0].numel())

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Divide the rows into blocks of first and beyond the last."""
        return pairwise([*range(0, self.rows, self._rows_of_block), self.rows])

    def sample(self, first: int, last: int) -> Tensor:
        """Sample the columns (groups, last - first, K) of a block, until the next call."""
        groups, width = self._shape
        columns = self._buffer[: groups * (last - first) * width].view(groups, last - first, width)
        _call('dcn_sample', [self.sizes, self.image, self.offset, self.mask, columns], first, last)
        return columns


class _Gradients:
    """The gradients of what the columns were sampled from and with.

    Args:
        columns: whose they are.

    Attributes:
        image: shaped as the image of the columns, float32, as all.
        offset: as their offset.
        mask: as their mask.
    """

    def __init__(self, columns: _Columns) -> None:
        self._columns = columns
        self.image = torch.zeros_like(columns.image, dtype=torch.float32)
        self.offset, self.mask = torch.empty_like(columns.offset), torch.empty_like(columns.mask)

    def add(self, grad_columns: Tensor, first: int, last: int) -> None:
        """Pass the gradient of a block's columns on."""
        columns = self._columns
        sampled = [columns.sizes, columns.image, columns.offset, columns.mask]
        _call('dcn_gradients', [*sampled, grad_columns.contiguous(), self.image, self.offset, self.mask], first, last)


def _channels_last(maps: Tensor) -> Tensor:
    """Lay (B, C, H, W) maps out as (B, H, W, C)."""
    return maps.permute(0, 2, 3, 1).contiguous()


def _matrices(weight: Tensor, groups: int) -> Tensor:
    """Lay weights (O, C / G, kh, kw) out as matrices (G, O / G, K) of the K = kh * kw * C / G entries of a column."""
    return weight.permute(0, 2, 3, 1).reshape(groups, len(weight) // groups, -1)


def _computed_dtype(inputs: Tensor) -> torch.dtype:
    """Return the type of columns and weights."""
    multiplied = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if inputs.dtype == torch.bfloat16 and multiplied else torch.float32


def _product(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply (M, K) with the transpose of (N, K), each with any strides.

    Through oneDNN, as PyTorch's convolutions: ``torch.mm`` is MKL in float32, and on processors of AMD takes twice as
    long, since it uses half the width of their vectors.
    """
    if torch.backends.mkldnn.is_available():
        return torch.ops.mkldnn._linear_pointwise(left, right, bias, 'none', [], '')
    return F.linear(left, right, bias)


def _call(name: str, tensors: list[Tensor], first: int, last: int) -> None:
    """Call a function of the library for the type of the image, the second of the tensors, and a block of rows."""
    function = getattr(built_library(), f'{name}_{str(tensors[1].dtype).removeprefix("torch.")}')
    function(*(ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors), ctypes.c_int64(first), ctypes.c_int64(last))
