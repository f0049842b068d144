"""What the motion of the vehicle does to the BEV of the frame before (paper section 3.4, ego-motion alignment)."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .bev_grid import BEVGrid
from .pose import PlanarMotion


def bev_shift(motion: PlanarMotion, grid: BEVGrid) -> Tensor:
    """Compute the displacement of the vehicles in fractions of the grid (paper section 3.4, ego-motion alignment).

    With d the global translation since the last frame, a the heading and b = atan2(dy, dx):
    ``shift_y = |d| cos(a - b) / cell_y / bev_h`` and ``shift_x = |d| sin(a - b) / cell_x / bev_w``.

    Args:
        motion: of B vehicles since their previous frames.
        grid: the BEV grid.

    Returns:
        (B, 2) float32, (shift_x, shift_y).
    """
    distance = motion.translation[:, :2].norm(dim=-1)
    angle = motion.heading - torch.atan2(motion.translation[:, 1], motion.translation[:, 0])
    shift_y = distance * angle.cos() / grid.cell_y / grid.bev_h
    shift_x = distance * angle.sin() / grid.cell_x / grid.bev_w
    return torch.stack([shift_x, shift_y], dim=-1).float()


def rotate_bev(
    bev_embed: Tensor,
    degrees: Tensor,
    grid: BEVGrid,
    center: tuple[float, float] | None = None,
    interpolation: str = 'bilinear',
) -> Tensor:
    """Rotate BEV maps counter-clockwise on the array, each by its own angle; cells from outside the grid are zero.

    Args:
        bev_embed: (B, Q, C).
        degrees: (B,) heading change since the frame of ``bev_embed``.
        center: None turns the world about the vehicle, the origin of the LiDAR frame. A (column, row) turns the array
            about that place, as the published code does: no rotation in metres where cells are not square.
        interpolation: 'bilinear' or 'nearest'.

    Returns:
        (B, Q, C).

    Raises:
        ValueError: if the map does not fill the grid.
    """
    if bev_embed.shape[1] != grid.num_queries:
        raise ValueError(f'a BEV map of {bev_embed.shape[1]} cells does not fill a {grid.bev_h} x {grid.bev_w} grid')
    radians = -degrees.to(torch.float64) * (math.pi / 180)
    cos, sin = radians.cos(), radians.sin()
    offset_x, offset_y, oblong = rotation_center(grid, center)
    # This maps output cells to input cells, both counted from the centre of the grid.
    sin_xy, sin_yx = sin * oblong, sin / oblong
    shift_x = -cos * offset_x - sin_xy * offset_y + offset_x
    shift_y = sin_yx * offset_x - cos * offset_y + offset_y
    cos, sin_xy, sin_yx, shift_x, shift_y = (
        value.to(bev_embed.device, torch.float32, non_blocking=True)
        for value in (cos, sin_xy, sin_yx, shift_x, shift_y)
    )
    return sample_rotated(bev_embed, cos, (sin_xy, sin_yx), (shift_x, shift_y), grid, interpolation)


def rotation_center(grid: BEVGrid, center: tuple[float, float] | None) -> tuple[float, float, float]:
    """Tell where :func:`rotate_bev` turns a grid about, and how oblong its cells are.

    Args:
        grid: the BEV grid.
        center: as of :func:`rotate_bev`.

    Returns:
        Columns and rows from the centre of the grid to the centre of the rotation, and the length of a cell over its
        width, which is 1 where the array is turned.
    """
    if center is not None:
        return center[0] - grid.bev_w * 0.5, center[1] - grid.bev_h * 0.5, 1.0
    x_min, y_min, _, x_max, y_max, _ = grid.point_cloud_range
    return -(x_min + x_max) / 2 / grid.cell_x, -(y_min + y_max) / 2 / grid.cell_y, grid.cell_y / grid.cell_x


def sample_rotated(
    bev_embed: Tensor,
    cos: Tensor,
    sin: tuple[Tensor, Tensor],
    shift: tuple[Tensor, Tensor],
    grid: BEVGrid,
    interpolation: str = 'bilinear',
) -> Tensor:
    """Sample BEV maps where each of their cells was before a rotation that is given by its cosine and sine.

    The cell x columns and y rows from the grid's centre was at ``x * cos + y * sin[0] + shift[0]`` and
    ``y * cos - x * sin[1] + shift[1]``; cells from outside the grid are zero.

    Args:
        bev_embed: (B, Q, C).
        cos: (B,) float32.
        sin: (B,) float32 each, for columns and rows.
        shift: (B,) float32 each, columns and rows.
        grid: the BEV grid.
        interpolation: 'bilinear' or 'nearest'.

    Returns:
        (B, Q, C).
    """
    height, width = grid.bev_h, grid.bev_w
    maps = bev_embed.transpose(1, 2).unflatten(2, (height, width))  # BxQxC -> BxCxHxW
    cos, sin_xy, sin_yx, shift_x, shift_y = (value[:, None, None] for value in (cos, *sin, *shift))
    x = torch.arange(width, device=bev_embed.device) + 0.5 - width * 0.5
    y = (torch.arange(height, device=bev_embed.device) + 0.5 - height * 0.5)[:, None]
    # These are products and sums instead of a matrix product, which autocast or TF32 would make imprecise.
    source_x, source_y = x * cos + y * sin_xy + shift_x, y * cos - x * sin_yx + shift_y  # BxHxW each
    sampling = torch.stack([source_x / (0.5 * width), source_y / (0.5 * height)], dim=-1)
    rotated = F.grid_sample(maps.float(), sampling, mode=interpolation, padding_mode='zeros', align_corners=False)
    return rotated.flatten(2).transpose(1, 2).to(bev_embed.dtype)


def transform_bev(bev_embed: Tensor, matrices: Tensor, grid: BEVGrid) -> Tensor:
    """Move what BEV maps show about the origin of the LiDAR frame; cells from outside the grid are zero.

    Args:
        bev_embed: (B, Q, C).
        matrices: (B, 2, 2) that bring places (x, y) in metres to where they shall be, such as rotations and
            mirrorings.
        grid: the BEV grid.

    Returns:
        (B, Q, C), interpolated bilinearly.
    """
    x_min, y_min, _, x_max, y_max, _ = grid.point_cloud_range
    x = (torch.arange(grid.bev_w, dtype=torch.float64) + 0.5) * grid.cell_x + x_min
    y = (torch.arange(grid.bev_h, dtype=torch.float64) + 0.5) * grid.cell_y + y_min
    places = torch.stack([x.expand(grid.bev_h, -1), y[:, None].expand(-1, grid.bev_w)], dim=-1)  # HxWx2, metres
    sources = torch.einsum('bij,hwj->bhwi', torch.linalg.inv(matrices.double().cpu()), places)
    middle = sources.new_tensor([x_min + x_max, y_min + y_max]) / 2
    half_extent = sources.new_tensor([x_max - x_min, y_max - y_min]) / 2
    sampling = ((sources - middle) / half_extent).to(bev_embed.device, torch.float32, non_blocking=True)
    maps = bev_embed.transpose(1, 2).unflatten(2, (grid.bev_h, grid.bev_w)).float()  # BxCxHxW
    moved = F.grid_sample(maps, sampling, mode='bilinear', padding_mode='zeros', align_corners=False)
    return moved.flatten(2).transpose(1, 2).to(bev_embed.dtype)
