"""Six cameras and one lidar mounted like those of nuScenes.

Ego frame: x forward, y left, z up, origin on the ground under the rear axle. Camera frame: x right, y down, z forward.
LiDAR frame: x right, y forward, z up.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from pyquaternion import Quaternion

REFERENCE_WIDTH, REFERENCE_HEIGHT = 1600, 900  # pixels of a nuScenes image


@dataclasses.dataclass(frozen=True)
class Mount:
    """How a camera is mounted on the vehicle, before the small differences between vehicles.

    Attributes:
        position: metres in the ego frame.
        yaw: degrees, counter-clockwise from straight ahead.
        focal: focal length in pixels of an image of 1600 x 900.
        delay: microseconds from the lidar's timestamp to the image, negative before it.
    """

    position: tuple[float, float, float]
    yaw: float
    focal: float
    delay: int


CAMERA_MOUNTS = {
    'CAM_FRONT': Mount((1.70, 0.00, 1.51), 0.0, 1266.0, -35000),
    'CAM_FRONT_RIGHT': Mount((1.55, -0.49, 1.50), -55.0, 1260.0, -27000),
    'CAM_BACK_RIGHT': Mount((1.02, -0.48, 1.56), -110.0, 1259.0, -19000),
    'CAM_BACK': Mount((0.03, 0.00, 1.57), 180.0, 809.0, -10000),
    'CAM_BACK_LEFT': Mount((1.04, 0.48, 1.57), 110.0, 1257.0, -1000),
    'CAM_FRONT_LEFT': Mount((1.52, 0.49, 1.51), 55.0, 1272.0, -43000),
}
LIDAR = 'LIDAR_TOP'
LIDAR_POSITION = (0.94, 0.0, 1.84)


@dataclasses.dataclass(frozen=True)
class Sensor:
    """One calibrated sensor.

    Attributes:
        channel: nuScenes channel name.
        translation: (3,) metres in the ego frame.
        rotation: from the sensor's frame to the ego frame.
    """

    channel: str
    translation: np.ndarray
    rotation: Quaternion

    @property
    def to_ego(self) -> np.ndarray:
        """The transformation (4, 4) from the sensor's frame to the ego frame."""
        matrix = self.rotation.transformation_matrix
        matrix[:3, 3] = self.translation
        return matrix


@dataclasses.dataclass(frozen=True)
class Camera(Sensor):
    """One calibrated camera.

    Attributes:
        intrinsic: (3, 3) from its frame to pixels times depth.
    """

    intrinsic: np.ndarray


def ego_to_global(pose: Sequence[float] | np.ndarray) -> np.ndarray:
    """Make the transformation (4, 4) from the ego frame to the global one; the pose is x, y, yaw on the ground."""
    x, y, yaw = pose
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
    matrix[:2, 3] = x, y
    return matrix


def yaw_quaternion(yaw: float) -> list[float]:
    """Make the quaternion (w, x, y, z) of a rotation about the vertical axis."""
    return [float(np.cos(yaw / 2)), 0.0, 0.0, float(np.sin(yaw / 2))]


def sample_rig(image_size: tuple[int, int], rng: np.random.Generator) -> dict[str, Sensor]:
    """Draw the calibration of one vehicle: nuScenes mounts with differences of a centimetre and half a degree.

    Args:
        image_size: (width, height) in pixels.

    Returns:
        Sensors by channel, the six cameras first and LIDAR_TOP last.
    """
    width, height = image_size
    scale = width / REFERENCE_WIDTH
    sensors: dict[str, Sensor] = {}
    for channel, mount in CAMERA_MOUNTS.items():
        position = np.array(mount.position) + rng.normal(0, 0.01, 3).clip(-0.03, 0.03)
        yaw, pitch, roll = np.deg2rad(np.array([mount.yaw, 0, 0]) + rng.normal(0, (0.5, 0.3, 0.2)).clip(-1, 1))
        look = Quaternion(axis=(0, 0, 1), radians=yaw) * Quaternion(axis=(0, 1, 0), radians=pitch)
        forward_left_up = look * Quaternion(axis=(1, 0, 0), radians=roll)
        optical = Quaternion(matrix=np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]))
        focal = scale * mount.focal * (1 + rng.normal(0, 0.004))
        centre = (scale * (816 + rng.normal(0, 6)), height * (480 + rng.normal(0, 8)) / REFERENCE_HEIGHT)
        intrinsic = np.array([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1.0]])
        sensors[channel] = Camera(channel, position, forward_left_up * optical, intrinsic)
    position = np.array(LIDAR_POSITION) + rng.normal(0, 0.01, 3).clip(-0.03, 0.03)
    yaw = np.deg2rad(-90 + rng.normal(0, 0.2))
    sensors[LIDAR] = Sensor(LIDAR, position, Quaternion(axis=(0, 0, 1), radians=yaw))
    return sensors
