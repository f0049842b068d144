"""The ground plane of a protocol's frame, and how it lies in the global frame."""

import numpy as np

from bevformer_plugin.errors import InputError

from .protocols import FRAMES

# From the axes of maps, x right and y forward, to those of the vehicle, x forward and y left.
_TO_VEHICLE_AXES = np.array([[0.0, 1.0, 0.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])


def plane_to_global(frame: str, ego2global: np.ndarray, lidar2ego: np.ndarray) -> np.ndarray:
    """Return how points of the ground, x to the right and y forward, lie in the global frame seen from above.

    For 'lidar' the points have the height of the vehicle's origin, which stands on the ground, below the LiDAR.

    Args:
        frame: 'lidar', 'ego' or 'flat_ego', see :class:`MapProtocol`.
        ego2global: (4, 4), the vehicle's pose.
        lidar2ego: (4, 4), the LiDAR's mount.

    Returns:
        (2, 3) float64: ``global_xy = M[:, :2] @ (x, y) + M[:, 2]``, metres.

    Raises:
        InputError: the frame is unknown.
    """
    if frame == 'lidar':
        matrix = ego2global @ lidar2ego
        height = np.linalg.inv(lidar2ego)[2, 3]
    elif frame == 'ego':
        matrix, height = ego2global @ _TO_VEHICLE_AXES, 0.0
    elif frame == 'flat_ego':
        heading = np.arctan2(ego2global[1, 0], ego2global[0, 0])
        cos, sin = np.cos(heading), np.sin(heading)
        return np.array([[sin, cos, ego2global[0, 3]], [-cos, sin, ego2global[1, 3]]])
    else:
        raise InputError(f'no frame {frame!r} of maps: choose one of {", ".join(FRAMES)}')
    return np.column_stack([matrix[:2, :2], matrix[:2, 3] + height * matrix[:2, 2]])


def from_global(points: np.ndarray, plane: np.ndarray) -> np.ndarray:
    """Bring global points (..., 2) into the frame of a plane, see :func:`plane_to_global`."""
    return (points - plane[:, 2]) @ np.linalg.inv(plane[:, :2]).T


def between_planes(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return how points of one plane lie in another, (2, 3) as :func:`plane_to_global` gives it."""
    inverse = np.linalg.inv(target[:, :2])
    return np.column_stack([inverse @ source[:, :2], inverse @ (source[:, 2] - target[:, 2])])
