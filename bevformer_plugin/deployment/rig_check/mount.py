"""How a camera hangs on its vehicle, in angles that a person can judge."""

from dataclasses import dataclass

import numpy as np

from .camera_names import NamedDirection

# Cameras of vehicles hang upright, and so are the images that models are trained on. They may look down as steeply as
# those for parking do. Degrees.
MAX_ROLL, MAX_UP, MAX_DOWN = 8.0, 20.0, 70.0
MIN_HEIGHT, MAX_HEIGHT = 0.0, 4.0  # metres above the ground, within which cameras are
USUAL_HEIGHT = 1.6
HALF_WIDTH = 1.1  # metres from the middle of a car to its side


@dataclass(frozen=True)
class Mount:
    """Direction and place of a camera on its vehicle.

    Attributes:
        yaw: degrees of the optical axis counter-clockwise from straight ahead.
        pitch: degrees of the optical axis above the horizon.
        roll: degrees by which the camera leans to its right, from -180 to 180.
        position: (3,) metres in the vehicle's frame.
    """

    yaw: float
    pitch: float
    roll: float
    position: np.ndarray

    @property
    def height(self) -> float:
        """Metres above the ground."""
        return float(self.position[2])

    @property
    def is_upright(self) -> bool:
        """Whether a camera of a vehicle may hang like this."""
        return abs(self.roll) <= MAX_ROLL and -MAX_DOWN <= self.pitch <= MAX_UP

    @property
    def is_above_ground(self) -> bool:
        """Whether it is between the ground and 4 m above it."""
        return MIN_HEIGHT < self.height <= MAX_HEIGHT

    def is_plausible(self, named: NamedDirection | None) -> bool:
        """Tell whether nothing about it looks wrong, with the direction that the camera's name says, if any."""
        agrees = named is None or named.deviation(self.yaw) <= named.tolerance
        return self.is_upright and self.is_above_ground and agrees

    def strangeness(self, named: NamedDirection | None, height: float) -> float:
        """Rate how unusual it is: 0 for a level camera in its usual direction, at the height of the others.

        Args:
            named: direction that the camera's name says, if any.
            height: metres of the other cameras of the rig.
        """
        deviations = [self.roll / 5, self.pitch / 15, self.height - height]
        deviations.append(max(0.0, abs(self.position[1]) - HALF_WIDTH) / 0.5)
        if named is not None:
            deviations.append(named.deviation(self.yaw) / 45)
        return float(np.square(deviations).sum())


def mount_of(camera2ego: np.ndarray) -> Mount:
    """Describe a (4, 4) pose of an optical frame (x right, y down, z forward) in the vehicle's frame."""
    right, down, forward = camera2ego[:3, :3].T
    yaw, roll = np.rad2deg([np.arctan2(forward[1], forward[0]), np.arctan2(-right[2], -down[2])])
    pitch = np.rad2deg(np.arcsin(np.clip(forward[2] / np.linalg.norm(forward), -1, 1)))
    return Mount(float(yaw), float(pitch), float(roll), camera2ego[:3, 3])
