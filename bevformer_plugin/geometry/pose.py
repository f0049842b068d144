"""Where a vehicle is, and how it moved between two places, seen from above.

A pose ``ego2global`` is a (4, 4) matrix, metres, from the vehicle's frame (x forward, y left, z up) to the global one.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

ORTHOGONAL_TOLERANCE = 1e-2  # how far products of the rows of a rotation may be off, which tables of few decimals are


@dataclass(frozen=True)
class PlanarMotion:
    """How vehicles moved since their previous frames; all float64.

    Attributes:
        translation: (B, 3) displacement in the global frame, metres.
        heading: (B,) direction of the current frame, radians from the global x axis, counter-clockwise, in [0, 2 pi).
        turn: (B,) change of the heading, degrees, counter-clockwise.
    """

    translation: Tensor
    heading: Tensor
    turn: Tensor


def heading_of(ego2global: Tensor) -> Tensor:
    """Direction of a vehicle's x axis: (..., 4, 4) poses to (...) radians in [0, 2 pi), as the nuScenes devkit's."""
    return torch.atan2(ego2global[..., 1, 0], ego2global[..., 0, 0]).remainder(2 * math.pi)


def is_rigid(poses: Tensor) -> Tensor:
    """Tell of each of (..., 4, 4) matrices whether it turns and moves, and does nothing else."""
    turns, identity = poses[..., :3, :3], torch.eye(4, dtype=poses.dtype)
    errors = (turns @ turns.transpose(-1, -2) - identity[:3, :3]).abs()
    orthogonal = (errors < ORTHOGONAL_TOLERANCE).flatten(-2).all(-1) & (torch.linalg.det(turns) > 0)
    return orthogonal & ((poses[..., 3, :] - identity[3]).abs() < 1e-6).all(-1)


def planar_motion(previous: Tensor, current: Tensor, wrap_turn: bool = True) -> PlanarMotion:
    """The motion between two poses of each vehicle (paper section 3.4).

    Args:
        previous: (B, 4, 4) float64 ego2global of the frames before; a frame without one stands still: its own pose.
        current: (B, 4, 4) float64 ego2global.
        wrap_turn: bring the change of the heading into [-180, 180) degrees. The published code does not, so a vehicle
            that crosses the global x axis appears to turn by almost 360 degrees.
    """
    heading, before = heading_of(current), heading_of(previous)
    turn = torch.rad2deg(heading) - torch.rad2deg(before)
    return PlanarMotion(
        translation=current[:, :3, 3] - previous[:, :3, 3],
        heading=heading,
        turn=torch.remainder(turn + 180, 360) - 180 if wrap_turn else turn,
    )
