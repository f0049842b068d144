"""A landmark in the world and in the BEV of vehicles that pass it.

A pose ``ego2global`` is a (4, 4) matrix from the vehicle's frame (x forward, y left, z up) to the global one, metres.
"""

import torch
from torch import Tensor

from bevformer_plugin.geometry import BEVGrid


def planar_pose(x: Tensor | float, y: Tensor | float, heading: Tensor | float) -> Tensor:
    """(..., 4, 4) float64 ego2global of vehicles on flat ground; heading in degrees, 0 along global +x."""
    values = (torch.as_tensor(value, dtype=torch.float64) for value in (x, y, heading))
    x, y, heading = torch.broadcast_tensors(*values)
    cos, sin = heading.deg2rad().cos(), heading.deg2rad().sin()
    pose = torch.eye(4, dtype=torch.float64).repeat(*x.shape, 1, 1)
    pose[..., 0, 0], pose[..., 0, 1], pose[..., 0, 3] = cos, -sin, x
    pose[..., 1, 0], pose[..., 1, 1], pose[..., 1, 3] = sin, cos, y
    return pose


def can_bus_vector(ego2global: Tensor) -> Tensor:
    """(..., 18) absolute CAN-bus vectors of (..., 4, 4) poses, with the translation in the plane and the heading."""
    heading = torch.atan2(ego2global[..., 1, 0], ego2global[..., 0, 0]).rad2deg() % 360
    can_bus = torch.zeros(*heading.shape, 18, dtype=torch.float64)
    can_bus[..., :2] = ego2global[..., :2, 3]
    can_bus[..., 16], can_bus[..., 17] = heading.deg2rad(), heading
    return can_bus


def to_global(ahead: Tensor | float, left: Tensor | float, ego2global: Tensor) -> Tensor:
    """(..., 2) global (x, y) of what lies so many metres ahead and to the left of the vehicles."""
    ahead, left = torch.as_tensor(ahead)[..., None], torch.as_tensor(left)[..., None]
    return ego2global[..., :2, 3] + ahead * ego2global[..., :2, 0] + left * ego2global[..., :2, 1]


def to_cells(point: Tensor, ego2global: Tensor, grid: BEVGrid) -> Tensor:
    """(..., 2) global (x, y) as (column, row) of the grid around the vehicles; cell centres are at halves."""
    offset = point - ego2global[..., :2, 3]
    ahead, left = (offset * ego2global[..., :2, 0]).sum(-1), (offset * ego2global[..., :2, 1]).sum(-1)
    x_min, y_min = grid.point_cloud_range[:2]
    return torch.stack([(-left - x_min) / grid.cell_x, (ahead - y_min) / grid.cell_y], dim=-1)


def blobs(at: Tensor, grid: BEVGrid) -> Tensor:
    """(K, Q, 1) BEV maps, each with a round peak, two cells wide, at one of (K, 2) places (column, row)."""
    columns, rows = torch.arange(grid.bev_w) + 0.5, torch.arange(grid.bev_h) + 0.5
    squared = (columns - at[:, 0, None])[:, None] ** 2 + ((rows - at[:, 1, None]) ** 2)[:, :, None]
    return torch.exp(-squared / 4).float().flatten(1)[..., None]


def centroids(maps: Tensor, grid: BEVGrid) -> Tensor:
    """(K, 2) places (column, row) of the centre of mass of (K, Q, 1) BEV maps."""
    maps = maps.double().view(-1, grid.bev_h, grid.bev_w)
    columns, rows = torch.arange(grid.bev_w) + 0.5, torch.arange(grid.bev_h) + 0.5
    mass = torch.stack([(maps.sum(1) * columns).sum(1), (maps.sum(2) * rows).sum(1)], dim=-1)
    return mass / maps.sum((1, 2))[:, None]
