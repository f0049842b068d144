"""Frames of a vehicle that drives and turns, with noise for images."""

import numpy as np
import torch
from torch import Tensor

from bevformer_plugin.models import Frame
from tests.helpers.landmarks import planar_pose
from tests.helpers.reference_files import reference_module


def drive(
    image_hw: tuple[int, int], num_cameras: int = 6, frames: int = 8, scene_starts: tuple = (0, 5)
) -> list[Frame]:
    """Frames in two scenes, half a second apart; one vehicle crosses the global x axis, the other turns fast."""
    rig = reference_module('rig').lidar2img(image_hw[1] / 1600)[np.arange(num_cameras) % 6]
    made = []
    for number in range(frames):
        scene = sum(number >= start for start in scene_starts)
        heading = 350.0 + 7.5 * number if scene == 1 else 200.0 - 21.0 * number
        pose = planar_pose(620.0 + 2.5 * number, 1600.0 - 1.5 * number, heading)
        half = np.deg2rad(heading) / 2
        motion = [np.cos(half), 0, 0, np.sin(half), 0.3, -0.1, 9.8, 0.0, 0.0, 0.2, 5.0, 0.0, 0.0]
        made.append(
            Frame(
                name=f'{scene}.{number}',
                scene=str(scene),
                timestamp=0.5 * number,
                lidar2img=torch.from_numpy(rig),
                ego2global=pose,
                can_bus=torch.tensor(motion, dtype=torch.float64),
            )
        )
    return made


def noise(shape: tuple[int, ...], seed: int) -> Tensor:
    """Standard normal values."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
