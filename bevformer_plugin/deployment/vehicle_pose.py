"""Where a vehicle is, as users write it."""

import numpy as np
import torch
from numpy.typing import ArrayLike

from bevformer_plugin.errors import InputError
from bevformer_plugin.geometry import is_rigid


def ego2global_of(pose: ArrayLike, name: str = 'the pose') -> np.ndarray:
    """Make the (4, 4) float64 pose of a vehicle.

    Args:
        pose: (4, 4) ego2global, from the vehicle's frame (x forward, y left, z up) to one that stays where it is,
            metres; or (x, y, yaw) on flat ground, metres and radians, counter-clockwise from the x axis.
        name: what messages call it.

    Raises:
        InputError: for another shape, numbers that are not finite, or a matrix that is no rigid motion.
    """
    try:
        values = np.array(pose, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.shape not in ((3,), (4, 4)):
        text = repr(pose)
        raise InputError(
            f'{name} is a (4, 4) matrix ego2global or (x, y, yaw), got '
            + (text if len(text) <= 100 else f'{text[:97]}...')
        )
    if not np.isfinite(values).all():
        raise InputError(f'{name} holds numbers that are not finite: {values.tolist()}')
    if values.shape == (3,):
        x, y, yaw = values
        planar = np.eye(4)
        planar[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
        planar[:2, 3] = x, y
        return planar
    if not is_rigid(torch.from_numpy(values)):
        raise InputError(
            f'{name} is no rotation with a translation, {np.round(values, 3).tolist()}: give ego2global, with the '
            'translation in the last column and a last row of 0, 0, 0, 1'
        )
    return values
