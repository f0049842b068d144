"""Triton kernels of modulated deformable convolution: products with columns that are sampled as they are needed.

The tensors are image (B, H, W, C), offset (B, Ho, Wo, DG, T, 2) of (y, x) in pixels and mask (B, Ho, Wo, DG, T), both
float32, weight (O, T, C / G), output (B, Ho, Wo, O). All of them are contiguous. A row is a pixel of the output. The
channels come in pieces that belong to one group of the convolution and one of the offsets, and a piece in blocks.

Sizes are numbers and no tensor: one that is made where PyTorch records a CUDA graph, and kept, would be taken for an
output that the graph does not know of.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# Triton is not installed beside torch for CPUs, and its decorators and types are then unknown.

import triton
import triton.language as tl

# The numbers that place a tap. They differ from layer to layer, for which a kernel is not to be compiled again.
SIZES = (
    *('height', 'width', 'out_h', 'out_w', 'stride_h', 'stride_w', 'pad_h', 'pad_w', 'dilation_h', 'dilation_w'),
    *('kernel_w', 'taps', 'deform_groups'),
)


@triton.jit
def _place(
    offset: tl.tensor,
    mask: tl.tensor,
    row: tl.tensor,
    row_inside: tl.tensor,
    deform_group: tl.tensor,
    tap: tl.tensor,
    sizes: tl.tuple,
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """Find the first pixel of the rows' images, the cell above and left of what a tap samples, and the way beyond it.

    Also whether any corner may be inside, and the mask. The distance beyond the cell is NaN if the offset is not
    finite, so that everything computed with it is NaN, too.
    """
    height, width, out_h, out_w = sizes[0]
    stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w = sizes[1]
    kernel_w, taps, deform_groups = sizes[2]
    place = (row * deform_groups + deform_group) * taps + tap
    dy = tl.load(offset + 2 * place, mask=row_inside, other=0.0)
    dx = tl.load(offset + 2 * place + 1, mask=row_inside, other=0.0)
    factor = tl.load(mask + place, mask=row_inside, other=0.0)
    finite = (tl.abs(dx) < float('inf')) & (tl.abs(dy) < float('inf'))
    row_y = (row // out_w) % out_h
    y = (row_y * stride_h - pad_h + tap // kernel_w * dilation_h).to(tl.float32) + dy
    row_x = row % out_w
    x = (row_x * stride_w - pad_w + tap % kernel_w * dilation_w).to(tl.float32) + dx
    # False if a coordinate is not finite. Positions far outside are set to 0, so that they do not overflow an integer.
    near = row_inside & (x > -1) & (y > -1) & (x < width) & (y < height)
    x = tl.where(near, x, 0.0)
    y = tl.where(near, y, 0.0)
    left = tl.floor(x)
    top = tl.floor(y)
    fx = tl.where(finite, x - left, float('nan'))
    fy = tl.where(finite, y - top, float('nan'))
    first = row // (out_h * out_w) * height * width
    return first, left.to(tl.int32), top.to(tl.int32), fx, fy, near, factor


@triton.jit
def _corner(
    first: tl.tensor, column: tl.tensor, row: tl.tensor, near: tl.tensor, sizes: tl.tuple
) -> tuple[tl.tensor, tl.tensor]:
    """Compute the position of a corner in all images, and whether it lies inside."""
    height, width = sizes[0][0], sizes[0][1]
    inside = near & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return first + row * width + column, inside


@triton.jit
def _product(left: tl.tensor, right: tl.tensor, PRECISION: tl.constexpr, WIDEN: tl.constexpr) -> tl.tensor:
    """Multiply two matrices, summed in float32; Triton's interpreter multiplies no bfloat16, hence WIDEN."""
    if WIDEN:
        left = left.to(tl.float32)
        right = right.to(tl.float32)
    return tl.dot(left, right, input_precision=PRECISION)


@triton.jit
def _columns(
    image: tl.tensor,
    offset: tl.tensor,
    mask: tl.tensor,
    sizes: tl.tuple,
    row: tl.tensor,
    row_inside: tl.tensor,
    deform_group: tl.tensor,
    tap: tl.tensor,
    channel: tl.tensor,
    channel_inside: tl.tensor,
    channels: tl.tensor,
) -> tl.tensor:
    """Sample what a tap sees of some channels, scaled by the mask, for a block of rows: rows x channels, float32."""
    first, left, top, fx, fy, near, factor = _place(offset, mask, row, row_inside, deform_group, tap, sizes)
    zero = tl.where(row_inside, factor * (fx * 0.0 + fy * 0.0), 0.0)  # or NaN
    total = tl.where(channel_inside[None, :], zero[:, None], 0.0)
    for corner in tl.static_range(4):
        position, inside = _corner(first, left + corner % 2, top + corner // 2, near, sizes)
        share = factor * (fx if corner % 2 else 1 - fx) * (fy if corner // 2 else 1 - fy)
        sampled = tl.load(
            image + (position * channels)[:, None] + channel[None, :],
            mask=inside[:, None] & channel_inside[None, :],
            other=0.0,
        ).to(tl.float32)
        total += tl.where(inside[:, None] & channel_inside[None, :], share[:, None] * sampled, 0.0)
    return total


@triton.jit(do_not_specialize=SIZES)
def convolution_kernel(
    image: tl.tensor,
    offset: tl.tensor,
    mask: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    output: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    out_h: tl.tensor,
    out_w: tl.tensor,
    stride_h: tl.tensor,
    stride_w: tl.tensor,
    pad_h: tl.tensor,
    pad_w: tl.tensor,
    dilation_h: tl.tensor,
    dilation_w: tl.tensor,
    kernel_w: tl.tensor,
    taps: tl.tensor,
    deform_groups: tl.tensor,
    rows: tl.tensor,
    channels: tl.tensor,
    outputs: tl.tensor,
    per_group: tl.tensor,
    per_deform_group: tl.tensor,
    piece: tl.tensor,
    outputs_per_group: tl.tensor,
    HAS_BIAS: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
) -> None:
    """Compute a block of rows for a block of the outputs of one group."""
    sizes = (
        (height, width, out_h, out_w),
        (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w),
        (kernel_w, taps, deform_groups),
    )
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    group = tl.program_id(2)
    within = tl.program_id(1) * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
    row_inside = row < rows
    output_inside = within < outputs_per_group
    out = group * outputs_per_group + within
    total = tl.zeros((BLOCK_ROWS, BLOCK_OUTPUTS), dtype=tl.float32)
    for tap in range(taps):
        for start in range(0, per_group, piece):
            deform_group = (group * per_group + start) // per_deform_group
            for block in range(0, piece, BLOCK_CHANNELS):
                in_piece = block + tl.arange(0, BLOCK_CHANNELS)
                channel_inside = in_piece < piece
                columns = _columns(
                    image,
                    offset,
                    mask,
                    sizes,
                    row,
                    row_inside,
                    deform_group,
                    tap,
                    group * per_group + start + in_piece,
                    channel_inside,
                    channels,
                )
                # channels x outputs
                matrix = tl.load(
                    weight + ((out * taps + tap) * per_group)[None, :] + (start + in_piece)[:, None],
                    mask=channel_inside[:, None] & output_inside[None, :],
                    other=0.0,
                )
                total += _product(columns.to(matrix.dtype), matrix, PRECISION, WIDEN)
    if HAS_BIAS:
        total += tl.load(bias + out, mask=output_inside, other=0.0).to(tl.float32)[None, :]
    tl.store(
        output + (row * outputs)[:, None] + out[None, :],
        total.to(output.dtype.element_ty),
        mask=row_inside[:, None] & output_inside[None, :],
    )


@triton.jit(do_not_specialize=SIZES)
def input_gradient_kernel(
    grad_output: tl.tensor,
    image: tl.tensor,
    offset: tl.tensor,
    mask: tl.tensor,
    weight: tl.tensor,
    grad_image: tl.tensor,
    grad_offset: tl.tensor,
    grad_mask: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    out_h: tl.tensor,
    out_w: tl.tensor,
    stride_h: tl.tensor,
    stride_w: tl.tensor,
    pad_h: tl.tensor,
    pad_w: tl.tensor,
    dilation_h: tl.tensor,
    dilation_w: tl.tensor,
    kernel_w: tl.tensor,
    taps: tl.tensor,
    deform_groups: tl.tensor,
    rows: tl.tensor,
    channels: tl.tensor,
    outputs: tl.tensor,
    per_group: tl.tensor,
    per_deform_group: tl.tensor,
    piece: tl.tensor,
    outputs_per_group: tl.tensor,
    PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
) -> None:
    """Compute the gradients of offset and mask for a block of rows and one tap, and add to that of the image.

    grad_image has to be float32 zeros.
    """
    sizes = (
        (height, width, out_h, out_w),
        (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w),
        (kernel_w, taps, deform_groups),
    )
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    tap = tl.program_id(1)
    deform_group = tl.program_id(2)
    row_inside = row < rows
    first, left, top, fx, fy, near, factor = _place(offset, mask, row, row_inside, deform_group, tap, sizes)
    of_mask = tl.where(row_inside, fx * 0.0 + fy * 0.0, 0.0)  # 0 or NaN, as the following
    of_x = of_mask + factor * 0.0
    of_y = of_mask + factor * 0.0
    for start in range(deform_group * per_deform_group, (deform_group + 1) * per_deform_group, piece):
        group = start // per_group
        for block in range(0, piece, BLOCK_CHANNELS):
            in_piece = block + tl.arange(0, BLOCK_CHANNELS)
            channel_inside = in_piece < piece
            channel = start + in_piece
            grad = tl.zeros((BLOCK_ROWS, BLOCK_CHANNELS), dtype=tl.float32)
            for first_output in range(0, outputs_per_group, BLOCK_OUTPUTS):
                within = first_output + tl.arange(0, BLOCK_OUTPUTS)
                output_inside = within < outputs_per_group
                out = group * outputs_per_group + within
                of_output = tl.load(
                    grad_output + (row * outputs)[:, None] + out[None, :],
                    mask=row_inside[:, None] & output_inside[None, :],
                    other=0.0,
                )
                # outputs x channels
                matrix = tl.load(
                    weight + ((out * taps + tap) * per_group)[:, None] + (channel - group * per_group)[None, :],
                    mask=output_inside[:, None] & channel_inside[None, :],
                    other=0.0,
                )
                grad += _product(of_output, matrix, PRECISION, WIDEN)
            zero = tl.sum(grad * 0.0, axis=1)  # or NaN
            of_mask += zero
            of_x += zero
            of_y += zero
            for corner in tl.static_range(4):
                position, inside = _corner(first, left + corner % 2, top + corner // 2, near, sizes)
                share_x = fx if corner % 2 else 1 - fx
                share_y = fy if corner // 2 else 1 - fy
                place = (position * channels)[:, None] + channel[None, :]
                valid = inside[:, None] & channel_inside[None, :]
                sampled = tl.load(image + place, mask=valid, other=0.0).to(tl.float32)
                product = tl.sum(tl.where(valid, grad * sampled, 0.0), axis=1)
                tl.atomic_add(
                    grad_image + place, (factor * share_x * share_y)[:, None] * grad, mask=valid, sem='relaxed'
                )
                of_mask += share_x * share_y * product
                of_x += factor * (share_y if corner % 2 else -share_y) * product
                of_y += factor * (share_x if corner // 2 else -share_x) * product
    target = (row * deform_groups + deform_group) * taps + tap
    tl.store(grad_mask + target, of_mask, mask=row_inside)
    tl.store(grad_offset + 2 * target, of_y, mask=row_inside)
    tl.store(grad_offset + 2 * target + 1, of_x, mask=row_inside)


@triton.jit(do_not_specialize=SIZES)
def weight_gradient_kernel(
    grad_output: tl.tensor,
    image: tl.tensor,
    offset: tl.tensor,
    mask: tl.tensor,
    grad_weight: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    out_h: tl.tensor,
    out_w: tl.tensor,
    stride_h: tl.tensor,
    stride_w: tl.tensor,
    pad_h: tl.tensor,
    pad_w: tl.tensor,
    dilation_h: tl.tensor,
    dilation_w: tl.tensor,
    kernel_w: tl.tensor,
    taps: tl.tensor,
    deform_groups: tl.tensor,
    rows: tl.tensor,
    channels: tl.tensor,
    outputs: tl.tensor,
    per_group: tl.tensor,
    per_deform_group: tl.tensor,
    piece: tl.tensor,
    outputs_per_group: tl.tensor,
    PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
) -> None:
    """Compute the gradient of the weights of one tap for a block of channels and a block of outputs, over all rows."""
    sizes = (
        (height, width, out_h, out_w),
        (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w),
        (kernel_w, taps, deform_groups),
    )
    tap = tl.program_id(1)
    blocks = tl.cdiv(piece, BLOCK_CHANNELS)
    start = tl.program_id(0) // blocks * piece
    in_piece = tl.program_id(0) % blocks * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    channel_inside = in_piece < piece
    channel = start + in_piece
    group = start // per_group
    deform_group = start // per_deform_group
    within = tl.program_id(2) * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
    output_inside = within < outputs_per_group
    out = group * outputs_per_group + within
    total = tl.zeros((BLOCK_OUTPUTS, BLOCK_CHANNELS), dtype=tl.float32)
    for first_row in range(0, rows, BLOCK_ROWS):
        row = tl.arange(0, BLOCK_ROWS).to(tl.int64) + first_row
        row_inside = row < rows
        columns = _columns(
            image, offset, mask, sizes, row, row_inside, deform_group, tap, channel, channel_inside, channels
        )
        # outputs x rows
        of_output = tl.load(
            grad_output + out[:, None] + (row * outputs)[None, :],
            mask=output_inside[:, None] & row_inside[None, :],
            other=0.0,
        )
        total += _product(of_output, columns.to(of_output.dtype), PRECISION, WIDEN)
    tl.store(
        grad_weight + ((out * taps + tap) * per_group)[:, None] + (channel - group * per_group)[None, :],
        total.to(grad_weight.dtype.element_ty),
        mask=output_inside[:, None] & channel_inside[None, :],
    )
