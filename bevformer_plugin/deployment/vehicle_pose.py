"""Where a vehicle is, as users write it."""

import numpy as np
import torch
from numpy.typing import ArrayLike

from bevformer_plugin.errors import InputError
from bevformer_plugin.geometry import is_rigid


def ego2global_of(pose: ArrayLike) -> np.ndarray:
    """Make the (4, 4) float64 pose of a vehicle.

    Args:
        pose: (4, 4) ego2global, from the vehicle's frame (x forward, y left, z up) to one that stays where it is,
            metres; or (x, y, yaw) on flat ground, metres and radians, counter-clockwise from the x axis.

    Raises:
        InputError: for another shape, numbers that are not finite, or a matrix that is no rigid motion.
    """
    try:
        values = np.array(pose, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f'a pose is a (4, 4) matrix or (x, y, yaw), got {pose!r}') from None
    if values.shape not in ((3,), (4, 4)):
        raise InputError(f'a pose is a (4, 4) matrix or (x, y, yaw), got the shape {values.shape}')
    if not np.isfinite(values).all():
        raise InputError(f'a pose is not finite: {values.tolist()}')
    if values.shape == (3,):
        x, y, yaw = values
        planar = np.eye(4)
        planar[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
        planar[:2, 3] = x, y
        return planar
    if not is_rigid(torch.from_numpy(values)):
        raise InputError(
            f'a pose is no rotation with a translation: {np.round(values, 3).tolist()}. Give ego2global in metres, '
            'whose last row is 0, 0, 0, 1'
        )
    return values
