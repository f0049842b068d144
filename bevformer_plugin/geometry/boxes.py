"""Box parametrisations and conventions.

Metric boxes are (x, y, z, l, w, h, yaw, vx, vy) in the LiDAR frame (x right, y forward, z up), metres, radians, metres
per second. Network boxes are (cx, cy, log l, log w, cz, log h, sin yaw, cos yaw, vx, vy) with cz the box's *centre*.
"""

import math

import torch
from torch import Tensor

BOX_VALUES = 10  # of a network box


def normalize_boxes(boxes: Tensor) -> Tensor:
    """Convert (n, 9) metric boxes, whose z is the centre's, to (n, 10) network boxes."""
    if boxes.shape[-1] != 9:
        raise ValueError(f'boxes have 9 values, the last two their velocity, got {boxes.shape[-1]}')
    x, y, z, length, width, height, yaw, vx, vy = boxes.unbind(-1)
    return torch.stack([x, y, length.log(), width.log(), z, height.log(), yaw.sin(), yaw.cos(), vx, vy], dim=-1)


def denormalize_boxes(boxes: Tensor) -> Tensor:
    """Convert (..., 10) network boxes to (..., 9) metric boxes, whose z is the centre's."""
    x, y, log_l, log_w, z, log_h, sin, cos, vx, vy = boxes.unbind(-1)
    yaw = torch.atan2(sin, cos)
    return torch.stack([x, y, z, log_l.exp(), log_w.exp(), log_h.exp(), yaw, vx, vy], dim=-1)


def transform_boxes(boxes: Tensor, matrix: Tensor) -> Tensor:
    """Rotate, scale and mirror boxes about the origin of the LiDAR frame.

    Args:
        boxes: (n, 7) metric boxes without velocity.
        matrix: (2, 2) that brings places (x, y) to where they shall be: a rotation, a mirroring, a scale, or a product
            of these. Heights and what is in z grow with its scale.
    """
    matrix = matrix.to(boxes)
    scale = torch.linalg.det(matrix).abs().sqrt()
    yaw = boxes[:, 6]
    ahead = torch.stack([yaw.cos(), yaw.sin()], dim=1) @ matrix.T
    return torch.cat([boxes[:, :2] @ matrix.T, boxes[:, 2:6] * scale, torch.atan2(ahead[:, 1:], ahead[:, :1])], dim=1)


def network_center(boxes: Tensor) -> Tensor:
    """Return the centres (..., 3) of (..., 10) network boxes."""
    # Slices, since a list of numbers as an index would be copied to a GPU, and the CPU would wait for it.
    return torch.cat([boxes[..., :2], boxes[..., 4:5]], dim=-1)


def boxes_from_old_convention(boxes: Tensor) -> Tensor:
    """Convert boxes of mmdetection3d before 1.0 to today's convention.

    Args:
        boxes: (n, 7 or 9) with (x, y, z, w, l, h, yaw_old, ...).

    Returns:
        (n, 7 or 9) with (x, y, z, l, w, h, yaw, ...); z is not changed.
    """
    return _swap_convention(boxes)


def boxes_to_old_convention(boxes: Tensor) -> Tensor:
    """Convert boxes to the convention of mmdetection3d before 1.0, see :func:`boxes_from_old_convention`."""
    return _swap_convention(boxes)


def _swap_convention(boxes: Tensor) -> Tensor:
    """Swap length and width, and map ``yaw`` to ``-yaw - pi / 2`` in [-pi, pi), which is its own inverse."""
    if boxes.shape[-1] not in (7, 9):
        raise ValueError(f'boxes have 7 or 9 values, got {boxes.shape[-1]}')
    yaw = torch.remainder(-boxes[..., 6:7] - math.pi / 2 + math.pi, 2 * math.pi) - math.pi
    return torch.cat([boxes[..., :3], boxes[..., 4:5], boxes[..., 3:4], boxes[..., 5:6], yaw, boxes[..., 7:]], dim=-1)
