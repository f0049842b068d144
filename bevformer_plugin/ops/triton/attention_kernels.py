"""Triton kernels of multi-scale deformable attention.

The tensors are value (M, S, H, C), locations (R, H, L, P, 2) of (x, y) in fractions of a level, weights (R, H, L, P),
output (R, H, C), row_map (R,) with the map of each row, and level_table (L, 3) with (height, width, first position).
All of them are contiguous. A program computes a block of rows of one head, for all channels at once.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# Triton is not installed beside torch for CPUs, and its decorators and types are then unknown.

import triton
import triton.language as tl


@triton.jit
def _place(
    locations: tl.tensor, sample: tl.tensor, height: tl.tensor, width: tl.tensor, row_inside: tl.tensor
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """Find the cell above and left of each row's location, the distance beyond it, and whether a corner is in the map.

    The distance is NaN if the location is not finite, so that everything computed with it is NaN, too.
    """
    x = tl.load(locations + 2 * sample, mask=row_inside, other=0.0).to(tl.float32)
    y = tl.load(locations + 2 * sample + 1, mask=row_inside, other=0.0).to(tl.float32)
    finite = (tl.abs(x) < float('inf')) & (tl.abs(y) < float('inf'))
    x = x * width - 0.5
    y = y * height - 0.5
    # False if a coordinate is not finite. Locations far outside are set to 0, so that they do not overflow an integer.
    near = row_inside & (x > -1) & (y > -1) & (x < width) & (y < height)
    x = tl.where(near, x, 0.0)
    y = tl.where(near, y, 0.0)
    left = tl.floor(x)
    top = tl.floor(y)
    fx = tl.where(finite, x - left, float('nan'))
    fy = tl.where(finite, y - top, float('nan'))
    return left.to(tl.int32), top.to(tl.int32), fx, fy, near


@triton.jit
def _corner(
    column: tl.tensor, row: tl.tensor, height: tl.tensor, width: tl.tensor, near: tl.tensor
) -> tuple[tl.tensor, tl.tensor]:
    """Compute the position of a corner in its level, and whether it lies inside."""
    inside = near & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return row * width + column, inside


@triton.jit
def forward_kernel(
    value: tl.tensor,
    locations: tl.tensor,
    weights: tl.tensor,
    output: tl.tensor,
    row_map: tl.tensor,
    level_table: tl.tensor,
    rows: tl.tensor,
    positions: tl.tensor,
    heads: tl.tensor,
    channels: tl.tensor,
    levels: tl.tensor,
    points: tl.tensor,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
) -> None:
    """Compute the sum over levels and points of weight * bilinear sample."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    head = tl.program_id(1)
    channel = tl.arange(0, BLOCK_CHANNELS)
    row_inside = row < rows
    channel_inside = channel < channels
    first = tl.load(row_map + row, mask=row_inside, other=0).to(tl.int64) * positions
    total = tl.zeros((BLOCK_ROWS, BLOCK_CHANNELS), dtype=tl.float32)
    for level in range(levels):
        height = tl.load(level_table + 3 * level)
        width = tl.load(level_table + 3 * level + 1)
        start = tl.load(level_table + 3 * level + 2)
        for point in range(points):
            sample = ((row * heads + head) * levels + level) * points + point
            left, top, fx, fy, near = _place(locations, sample, height, width, row_inside)
            weight = tl.load(weights + sample, mask=row_inside, other=0.0).to(tl.float32)
            for corner in tl.static_range(4):
                position, inside = _corner(left + corner % 2, top + corner // 2, height, width, near)
                share = weight * (fx if corner % 2 else 1 - fx) * (fy if corner // 2 else 1 - fy)
                place = ((first + start + position) * heads + head) * channels
                sampled = tl.load(
                    value + place[:, None] + channel[None, :],
                    mask=inside[:, None] & channel_inside[None, :],
                    other=0.0,
                ).to(tl.float32)
                total += share[:, None] * sampled
    tl.store(
        output + ((row * heads + head) * channels)[:, None] + channel[None, :],
        total.to(output.dtype.element_ty),
        mask=row_inside[:, None] & channel_inside[None, :],
    )


@triton.jit
def backward_kernel(
    grad_output: tl.tensor,
    value: tl.tensor,
    locations: tl.tensor,
    weights: tl.tensor,
    grad_value: tl.tensor,
    grad_locations: tl.tensor,
    grad_weights: tl.tensor,
    row_map: tl.tensor,
    level_table: tl.tensor,
    rows: tl.tensor,
    positions: tl.tensor,
    heads: tl.tensor,
    channels: tl.tensor,
    levels: tl.tensor,
    points: tl.tensor,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
) -> None:
    """Compute the gradients of value, locations and weights; grad_value has to be float32 zeros."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    head = tl.program_id(1)
    channel = tl.arange(0, BLOCK_CHANNELS)
    row_inside = row < rows
    channel_inside = channel < channels
    first = tl.load(row_map + row, mask=row_inside, other=0).to(tl.int64) * positions
    grad = tl.load(
        grad_output + ((row * heads + head) * channels)[:, None] + channel[None, :],
        mask=row_inside[:, None] & channel_inside[None, :],
        other=0.0,
    ).to(tl.float32)
    for level in range(levels):
        height = tl.load(level_table + 3 * level)
        width = tl.load(level_table + 3 * level + 1)
        start = tl.load(level_table + 3 * level + 2)
        for point in range(points):
            sample = ((row * heads + head) * levels + level) * points + point
            left, top, fx, fy, near = _place(locations, sample, height, width, row_inside)
            weight = tl.load(weights + sample, mask=row_inside, other=0.0).to(tl.float32)
            grad_weight = tl.zeros((BLOCK_ROWS,), dtype=tl.float32)
            grad_x = tl.zeros((BLOCK_ROWS,), dtype=tl.float32)
            grad_y = tl.zeros((BLOCK_ROWS,), dtype=tl.float32)
            for corner in tl.static_range(4):
                position, inside = _corner(left + corner % 2, top + corner // 2, height, width, near)
                share_x = fx if corner % 2 else 1 - fx
                share_y = fy if corner // 2 else 1 - fy
                place = ((first + start + position) * heads + head) * channels
                pointer = place[:, None] + channel[None, :]
                valid = inside[:, None] & channel_inside[None, :]
                sampled = tl.load(value + pointer, mask=valid, other=0.0).to(tl.float32)
                product = tl.sum(grad * sampled, axis=1)
                tl.atomic_add(
                    grad_value + pointer, (weight * share_x * share_y)[:, None] * grad, mask=valid, sem='relaxed'
                )
                grad_weight += share_x * share_y * product
                grad_x += (share_y if corner % 2 else -share_y) * product
                grad_y += (share_x if corner // 2 else -share_x) * product
            tl.store(grad_weights + sample, grad_weight.to(grad_weights.dtype.element_ty), mask=row_inside)
            tl.store(
                grad_locations + 2 * sample,
                (grad_x * weight * width).to(grad_locations.dtype.element_ty),
                mask=row_inside,
            )
            tl.store(
                grad_locations + 2 * sample + 1,
                (grad_y * weight * height).to(grad_locations.dtype.element_ty),
                mask=row_inside,
            )
