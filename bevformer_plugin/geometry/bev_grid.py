"""The bird's-eye-view grid: how many cells, and which part of the world they cover."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bevformer_plugin.errors import InputError

from .constants import constants


@dataclass(frozen=True)
class BEVGrid:
    """A ``bev_h`` x ``bev_w`` grid over the x-y extent of a LiDAR-frame range.

    Row i grows with +y (row 0 is the rear), column j with +x; the query of cell (i, j) has index ``i * bev_w + j``.

    Args:
        bev_h: number of rows.
        bev_w: number of columns.
        point_cloud_range: (x_min, y_min, z_min, x_max, y_max, z_max) in metres, LiDAR frame.

    Raises:
        InputError: if the grid has no cells or the range is empty along an axis.
    """

    bev_h: int
    bev_w: int
    point_cloud_range: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.bev_h < 1 or self.bev_w < 1:
            raise InputError(f'the BEV grid needs at least one row and one column, got {self.bev_h} x {self.bev_w}')
        if len(self.point_cloud_range) != 6:
            raise InputError(f'point_cloud_range takes six numbers, got {self.point_cloud_range}')
        low, high = self.point_cloud_range[:3], self.point_cloud_range[3:]
        if any(a >= b for a, b in zip(low, high, strict=True)):
            raise InputError(f'point_cloud_range is (x, y, z) minima, then maxima; got {self.point_cloud_range}')
        object.__setattr__(self, 'point_cloud_range', tuple(float(v) for v in self.point_cloud_range))

    @property
    def cell_x(self) -> float:
        """Width of a cell along x in metres."""
        return (self.point_cloud_range[3] - self.point_cloud_range[0]) / self.bev_w

    @property
    def cell_y(self) -> float:
        """Length of a cell along y in metres."""
        return (self.point_cloud_range[4] - self.point_cloud_range[1]) / self.bev_h

    @property
    def num_queries(self) -> int:
        """Number of cells, and thus of BEV queries."""
        return self.bev_h * self.bev_w

    def cell_centers(self) -> np.ndarray:
        """Compute where the centres of the cells lie, (bev_h, bev_w, 2) float64 x and y in metres."""
        x_min, y_min = self.point_cloud_range[:2]
        x = x_min + (np.arange(self.bev_w) + 0.5) * self.cell_x
        y = y_min + (np.arange(self.bev_h) + 0.5) * self.cell_y
        return np.stack(np.meshgrid(x, y), axis=-1)


def bev_reference_points(grid: BEVGrid, device: torch.device | None = None) -> Tensor:
    """Compute the cell centres (Q, 2) as (x, y) in fractions of the grid, each in (0, 1)."""
    y = (torch.arange(grid.bev_h, device=device, dtype=torch.float32) + 0.5) / grid.bev_h
    x = (torch.arange(grid.bev_w, device=device, dtype=torch.float32) + 0.5) / grid.bev_w
    y, x = torch.meshgrid(y, x, indexing='ij')
    return torch.stack([x, y], dim=-1).flatten(0, 1)


def pillar_points(grid: BEVGrid, num_points: int, device: torch.device | None = None) -> Tensor:
    """Compute the 3-D reference points of every cell's pillar (paper section 3.3).

    Heights are ``linspace(0.5, Z - 0.5, D) / Z`` of the range's extent Z in metres.

    Returns:
        (D, Q, 3) float32, LiDAR frame, metres.
    """
    x_min, y_min, z_min, x_max, y_max, z_max = grid.point_cloud_range
    extent = constants([x_max - x_min, y_max - y_min], device)
    origin = constants([x_min, y_min], device)
    plane = bev_reference_points(grid, device) * extent + origin
    depth = z_max - z_min
    heights = torch.linspace(0.5, depth - 0.5, num_points, device=device) + z_min
    heights = heights[:, None, None].expand(-1, grid.num_queries, 1)  # DxQx1
    return torch.cat([plane.expand(num_points, -1, -1), heights], dim=-1)
