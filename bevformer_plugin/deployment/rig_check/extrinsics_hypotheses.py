"""What a wrong calibration of a camera would be if one of the usual mistakes were taken back."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from bevformer_plugin.deployment.camera import OPTICAL_TO_FORWARD

from .mount import Mount, mount_of

TO_OPTICAL = OPTICAL_TO_FORWARD[:3, :3]
# Optical axes in terms of other axes of a camera that people use.
OTHER_AXES = {
    'x forward, y left, z up': TO_OPTICAL,
    'x forward, y right, z down': np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]),
    'x right, y forward, z up': np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    'x right, y up, z backward': np.diag([1.0, -1, -1]),
}
# A mistake is taken to be another one only if that makes the mount so much less strange.
COST_OF_AXES = 0.5
COST_OF_QUATERNIONS = 0.5
COST_OF_ROTATION_VECTORS = 1.0
COST_OF_HEIGHT = 1.0
# Three angles in degrees can be found for almost every rotation, so they explain one only where nothing else does.
COST_OF_EULER_ANGLES = 6.0
RIGHT_ANGLE_TOLERANCE = 5.0  # degrees; a camera rolled by a right angle was mounted so


@dataclass(frozen=True)
class Hypothesis:
    """A mistake that may have been made, and what the calibration is without it.

    Attributes:
        fault: a key of :data:`.findings.FAULTS`.
        remedy: what to do about it.
        mount: of the camera, with the mistake taken back.
        cost: how much less likely than the most usual mistakes it is, in units of :meth:`.Mount.strangeness`.
    """

    fault: str
    remedy: str
    mount: Mount
    cost: float


def hypotheses(camera2ego: np.ndarray, height: float) -> Iterator[Hypothesis]:
    """Take back every known mistake of a rigid (4, 4) camera2ego, one at a time.

    Args:
        camera2ego: the calibration.
        height: metres above the ground of the other cameras.
    """
    rotation, position = camera2ego[:3, :3], camera2ego[:3, 3]
    yield Hypothesis(
        'height',
        'translations are metres, and heights count from the ground, z upward: raise a frame at the height of an axle '
        'with Rig.moved',
        _mount(rotation, np.array([*position[:2], height])),
        COST_OF_HEIGHT,
    )
    yield Hypothesis(
        'transposed_extrinsics',
        'its rotation is transposed: transpose the upper left 3 x 3',
        _mount(rotation.T, position),
        0.0,
    )
    yield Hypothesis(
        'inverted_extrinsics',
        'it is ego2camera, the transform from the vehicle to the camera: give np.linalg.inv of it',
        mount_of(np.linalg.inv(camera2ego)),
        0.0,
    )
    for axes, to_optical in OTHER_AXES.items():
        change = ', '.join(str([int(value) for value in row]) for row in to_optical)
        yield Hypothesis(
            'camera_axes',
            f'its camera axes are {axes} instead of optical ones (x right, y down, z forward): multiply its rotation '
            f'from the right by [{change}]',
            _mount(rotation @ to_optical, position),
            COST_OF_AXES,
        )
    x, y, z, w = Rotation.from_matrix(rotation).as_quat()
    for order, quaternion in {
        '(x, y, z, w) that was read as (w, x, y, z)': [w, x, y, z],
        '(w, x, y, z) that was read as (x, y, z, w)': [y, z, w, x],
    }.items():
        yield Hypothesis(
            'quaternion_order',
            f'its rotation is a quaternion {order}: pass its four numbers in the other order',
            _mount(Rotation.from_quat(quaternion).as_matrix(), position),
            COST_OF_QUATERNIONS,
        )
    yield from _degrees(rotation, position)


def _degrees(rotation: np.ndarray, position: np.ndarray) -> Iterator[Hypothesis]:
    """Read the rotation as one of angles that were degrees; whole turns of them are lost, so try every number."""
    vector = Rotation.from_matrix(rotation).as_rotvec()
    angle = float(np.linalg.norm(vector))
    if angle > 1e-6:
        for degrees in _degrees_of(angle):
            rotation_vector = np.deg2rad(degrees) * vector / angle
            yield Hypothesis(
                'degrees_for_radians',
                f'its rotation vector, {np.round(degrees * vector / angle, 1).tolist()} in degrees, was read as '
                'radians: pass np.deg2rad of it',
                _mount(Rotation.from_rotvec(rotation_vector).as_matrix(), position),
                COST_OF_ROTATION_VECTORS,
            )
    mount = mount_of(_pose(rotation, position))
    quarters = round(mount.roll / 90)
    if quarters and abs(mount.roll - 90 * quarters) < RIGHT_ANGLE_TOLERANCE:
        return
    turn, nose_down, roll = np.deg2rad([mount.yaw, -mount.pitch, mount.roll])
    # The same rotation has two triples of angles.
    for triple in ((turn, nose_down, roll), (turn + np.pi, np.pi - nose_down, roll + np.pi)):
        # Of the whole turns that the pitch lost, those that leave the least of it.
        pitch = min(_degrees_of(triple[1]), key=abs)
        for yaw in _degrees_of(triple[0]):
            angles = [yaw, pitch, (triple[2] + np.pi) % (2 * np.pi) - np.pi]
            yield Hypothesis(
                'degrees_for_radians',
                f'yaw, pitch and roll of about {np.round(angles, 1).tolist()} degrees read as radians give this '
                'rotation, and no other usual mistake does: pass np.deg2rad of the angles',
                Mount(float(yaw), -float(pitch), angles[2], position),
                COST_OF_EULER_ANGLES,
            )


def _degrees_of(radians: float) -> np.ndarray:
    """Return the numbers from -180 to 180 that are an angle, if they are taken for radians."""
    numbers = radians + 2 * np.pi * np.arange(-30, 31)
    return numbers[np.abs(numbers) <= 180]


def _pose(rotation: np.ndarray, position: np.ndarray) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, position
    return pose


def _mount(rotation: np.ndarray, position: np.ndarray) -> Mount:
    return mount_of(_pose(rotation, position))
