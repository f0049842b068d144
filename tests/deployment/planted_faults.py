"""Mistakes that people make with the calibration of a camera, made on purpose."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from bevformer_plugin.deployment import Camera, Rig
from bevformer_plugin.deployment.camera import OPTICAL_TO_FORWARD

VISIBLE = 15.0  # degrees that a mistake has to turn a camera, or it is none that anybody could see


def with_pose(camera: Camera, camera2ego: np.ndarray) -> Camera:
    return replace(camera, camera2ego=camera2ego)


def with_rotation(camera: Camera, rotation: Rotation) -> Camera:
    pose = camera.camera2ego.copy()
    pose[:3, :3] = rotation.as_matrix()
    return with_pose(camera, pose)


def rotation_of(camera: Camera) -> Rotation:
    return Rotation.from_matrix(camera.camera2ego[:3, :3])


def with_other_quaternion(camera: Camera, order: list[int]) -> Camera:
    return with_rotation(camera, Rotation.from_quat(rotation_of(camera).as_quat()[order]))


def with_euler_degrees(camera: Camera) -> Camera:
    axes = Rotation.from_matrix(OPTICAL_TO_FORWARD[:3, :3])
    angles = (rotation_of(camera) * axes.inv()).as_euler('ZYX', degrees=True)
    return with_rotation(camera, Rotation.from_euler('ZYX', angles) * axes)


def with_vector_degrees(camera: Camera) -> Camera:
    return with_rotation(camera, Rotation.from_rotvec(np.rad2deg(rotation_of(camera).as_rotvec())))


def with_height(camera: Camera, height: float) -> Camera:
    pose = camera.camera2ego.copy()
    pose[2, 3] = height
    return with_pose(camera, pose)


def with_axes(camera: Camera, optical_in_axes: np.ndarray) -> Camera:
    pose = np.eye(4)
    pose[:3, :3] = optical_in_axes.T
    return with_pose(camera, camera.camera2ego @ pose)


def scaled(camera: Camera, factor: float) -> Camera:
    return replace(camera, intrinsics=np.diag([factor, factor, 1.0]) @ camera.intrinsics)


def with_transposed_rotation(camera: Camera) -> Camera:
    return with_rotation(camera, rotation_of(camera).inv())


# By name of the mistake: what has to be found, and how it is made in one camera.
OF_ONE_CAMERA: dict[str, tuple[str, Callable[[Camera], Camera]]] = {
    'transposed matrix': ('transposed_extrinsics', lambda c: with_pose(c, c.camera2ego.T)),
    'transposed rotation': ('transposed_extrinsics', with_transposed_rotation),
    'inverted': ('inverted_extrinsics', lambda c: with_pose(c, np.linalg.inv(c.camera2ego))),
    'x forward, z up': ('camera_axes', lambda c: with_axes(c, OPTICAL_TO_FORWARD[:3, :3])),
    'x forward, z down': ('camera_axes', lambda c: with_axes(c, np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]))),
    'z backward': ('camera_axes', lambda c: with_axes(c, np.diag([1.0, -1, -1]))),
    'xyzw read as wxyz': ('quaternion_order', lambda c: with_other_quaternion(c, [1, 2, 3, 0])),
    'wxyz read as xyzw': ('quaternion_order', lambda c: with_other_quaternion(c, [3, 0, 1, 2])),
    'rotation vector in degrees': ('degrees_for_radians', with_vector_degrees),
    'Euler angles in degrees': ('degrees_for_radians', with_euler_degrees),
    'camera x flipped': ('left_handed', lambda c: with_pose(c, c.camera2ego @ np.diag([-1.0, 1, 1, 1]))),
    'vehicle y flipped': ('left_handed', lambda c: with_pose(c, np.diag([1.0, -1, 1, 1]) @ c.camera2ego)),
    'below the ground': ('height', lambda c: with_height(c, -c.camera2ego[2, 3])),
    'too high': ('height', lambda c: with_height(c, c.camera2ego[2, 3] + 4)),
    'intrinsics of half the size': ('intrinsics_resolution', lambda c: scaled(c, 0.5)),
    'intrinsics of 0.8 the size': ('intrinsics_resolution', lambda c: scaled(c, 0.8)),
    'intrinsics of twice the size': ('intrinsics_resolution', lambda c: scaled(c, 2.0)),
}


def plant(rig: Rig, name: str, change: Callable[[Camera], Camera]) -> Rig:
    """The rig with one camera changed."""
    return replace(rig, cameras={**rig.cameras, name: change(rig.cameras[name])})


def exchange(rig: Rig, first: str, second: str) -> Rig:
    """The rig with two cameras exchanged."""
    cameras = {**rig.cameras, first: rig.cameras[second], second: rig.cameras[first]}
    return replace(rig, cameras=cameras)


def turn_towards(rig: Rig, name: str, other: str) -> Rig:
    """The rig with one camera turned to look where another one does."""
    pose = rig.cameras[name].camera2ego.copy()
    pose[:3, :3] = rig.cameras[other].camera2ego[:3, :3]
    return replace(rig, cameras={**rig.cameras, name: replace(rig.cameras[other], camera2ego=pose)})


def turned_by(before: Camera, after: Camera) -> float:
    """Degrees between the rotations of two calibrations; 180 where one is no rotation."""
    turn = after.camera2ego[:3, :3]
    if np.linalg.det(turn) < 0.5 or not np.allclose(after.camera2ego[3], [0, 0, 0, 1]):
        return 180.0
    return float(np.rad2deg((rotation_of(before).inv() * rotation_of(after)).magnitude()))


def is_visible(before: Camera, after: Camera) -> bool:
    """Whether a mistake changes a calibration by more than nothing.

    A quaternion (.5, -.5, .5, -.5) of a camera that looks straight ahead is the same rotation in either order, and a
    camera that looks exactly to the right has a symmetric rotation.
    """
    moves = float(np.abs(before.camera2ego[:3, 3] - after.camera2ego[:3, 3]).max())
    rescaled = not np.allclose(before.intrinsics, after.intrinsics)
    return turned_by(before, after) > VISIBLE or moves > 1 or rescaled
