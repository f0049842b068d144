"""Faults of a rig that its calibration alone shows."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np
import torch

from bevformer_plugin.deployment.camera import Camera
from bevformer_plugin.deployment.rig import Rig
from bevformer_plugin.geometry import is_rigid

from .camera_names import NamedDirection, describe_yaw, direction_of, is_stereo
from .extrinsics_hypotheses import COST_OF_EULER_ANGLES, Hypothesis, hypotheses
from .findings import Finding
from .mount import USUAL_HEIGHT, Mount, mount_of

# How far from the middle of an image, in its widths and heights, principal points are. Images that are cut at top or
# bottom, as the models' own and those of Waymo's side cameras, move them up or down, not sideways.
MAX_CENTRE_SIDEWAYS, MAX_CENTRE_UPRIGHT = 0.15, 0.35
# Intrinsics of another size move both coordinates by the same share: less is needed to tell.
SCALED_CENTRE, SCALED_CENTRE_DIFFERENCE, LEAST_SCALED_SIDE = 0.065, 0.08, 0.05
MIN_FOV, MAX_FOV = 10.0, 150.0  # degrees, from tele cameras to the widest images that are worth undistorting
# Cameras look the same way if their axes and fields of view differ by less, degrees.
SAME_AXIS, SAME_FOV = 4.0, 6.0
# Exchanging two cameras has to bring them nearer to the directions of their names by so many degrees together.
SWAP_GAIN, SWAP_TOLERANCE = 40.0, 45.0
LEANS = 3.0  # degrees of pitch or roll
STEEP, LEVEL = 30.0, 10.0  # degrees of pitch; whatever the field of view, most cameras are level
MIRRORED_CAMERAS = 4  # so many mirrored cameras at the sides are more than an exchange of two
TURNED_CAMERAS = 3


def calibration_faults(rig: Rig) -> Iterator[Finding]:
    """Find what looks wrong with the calibration of a rig, without images or poses.

    Rotations are judged by whether the camera hangs upright, heights, and directions by what the cameras' names say.
    """
    sound: dict[str, Mount] = {}  # the cameras whose pose is a pose
    for name, camera in rig.cameras.items():
        finding = _form_fault(name, camera.camera2ego)
        if finding is None:
            sound[name] = mount_of(camera.camera2ego)
        else:
            yield finding
    yield from _mount_faults(rig, sound)
    for name, camera in rig.cameras.items():
        yield from _intrinsics_faults(name, camera)


def _form_fault(name: str, camera2ego: np.ndarray) -> Finding | None:
    """Find a camera2ego that is no rotation with a translation."""
    if is_rigid(torch.from_numpy(camera2ego)):
        return None
    turn = camera2ego[:3, :3]
    if is_rigid(torch.from_numpy(camera2ego.T.copy())):
        message = 'camera2ego is transposed, its translation is in the last row: transpose it'
        return Finding(name, 'transposed_extrinsics', message)
    flipped = camera2ego @ np.diag([-1.0, 1, 1, 1])
    if np.linalg.det(turn) < 0 and is_rigid(torch.from_numpy(flipped)):
        message = (
            f'the rotation of camera2ego mirrors (its determinant is {np.linalg.det(turn):.2f} instead of 1), so an '
            'axis of the camera or of the vehicle is flipped: use right-handed frames, camera x right, y down, z '
            'forward, vehicle x forward, y left, z up (Camera.from_carla converts those of Unreal)'
        )
        return Finding(name, 'left_handed', message)
    message = (
        f'camera2ego does more than turn and move: its rotation times its transpose is '
        f'{np.round(turn @ turn.T, 3).tolist()} and its last row {camera2ego[3].tolist()}, which should be the '
        'identity and [0, 0, 0, 1]: give rotation and translation in metres, without a scale'
    )
    return Finding(name, 'not_rigid', message)


def _mount_faults(rig: Rig, mounts: Mapping[str, Mount]) -> Iterator[Finding]:
    """Find what looks wrong with the poses of cameras that are poses."""
    strange = [
        name
        for name, mount in mounts.items()
        if not mount.is_plausible(direction_of(name)) or _is_only_steep_by_mistake(name, rig.cameras[name], mount)
    ]
    heights = [mount.height for name, mount in mounts.items() if name not in strange]
    height = float(np.median(heights)) if heights else USUAL_HEIGHT
    upright = {name: mount for name, mount in mounts.items() if mount.is_upright and mount.is_above_ground}
    of_frame = _frame_fault(mounts)
    if of_frame is not None:
        yield of_frame
        return
    of_pairs = list(_pair_faults(rig, upright))
    yield from of_pairs
    explained = {name for finding in of_pairs for name in (finding.camera, finding.other_camera)}
    for name in strange:
        if name not in explained:
            yield _explain(name, mounts[name], rig.cameras[name], height)


def _explain(name: str, mount: Mount, camera: Camera, height: float) -> Finding:
    """Say what is wrong with a camera that hangs strangely.

    Args:
        name: of the camera.
        mount: how it hangs.
        camera: its calibration.
        height: metres of the other cameras.
    """
    named = direction_of(name)
    best = _best_hypothesis(name, camera.camera2ego, height)
    looks = f'by camera2ego, {name} {_describe(mount)}'
    # Three angles explain a camera that hangs upright as well, whatever its yaw.
    leans = max(abs(mount.roll), abs(mount.pitch)) > LEANS
    if best is not None and (best.cost < COST_OF_EULER_ANGLES or leans):
        then = '' if best.fault == 'height' else f'; then it {_describe(best.mount)}'
        return Finding(name, best.fault, f'{looks}: {best.remedy}{then}')
    if not mount.is_upright or named is None:
        remedy = (
            'no usual mistake explains it: cameras are to hang upright, so turn the images of one that does not, and '
            'its intrinsics and camera2ego with them'
        )
        return Finding(name, 'tilted', f'{looks}: {remedy}')
    remedy = (
        f'its name says {describe_yaw(named.yaw)}: check the yaw of its camera2ego, which may be degrees that were '
        'read as radians, or rename it'
    )
    return Finding(name, 'direction_against_name', f'{looks}: {remedy}')


def _is_only_steep_by_mistake(name: str, camera: Camera, mount: Mount) -> bool:
    """Tell whether a camera that looks down steeply would be level and fit its name if a mistake were taken back.

    A quaternion in the wrong order makes the yaw of a camera its pitch.
    """
    named = direction_of(name)
    if mount.pitch > -STEEP or named is None:
        return False
    best = _best_hypothesis(name, camera.camera2ego, mount.height)
    return (
        best is not None
        and best.cost < COST_OF_EULER_ANGLES
        and abs(best.mount.pitch) < LEVEL
        and named.deviation(best.mount.yaw) < named.deviation(mount.yaw) - STEEP / 2
    )


def _best_hypothesis(name: str, camera2ego: np.ndarray, height: float) -> Hypothesis | None:
    """Return the mistake that explains a calibration best, None if none does."""
    named = direction_of(name)
    plausible = [each for each in hypotheses(camera2ego, height) if each.mount.is_plausible(named)]
    costs = [each.cost + each.mount.strangeness(named, height) for each in plausible]
    return plausible[int(np.argmin(costs))] if plausible else None


def _describe(mount: Mount) -> str:
    """Say where a camera is and looks."""
    place = f'is {mount.height:.2f} m above the ground and looks {describe_yaw(mount.yaw)}'
    side = 'up' if mount.pitch > 0 else 'down'
    return f'{place}, {abs(mount.pitch):.0f} degrees {side}, rolled by {abs(mount.roll):.0f}'


def _pair_faults(rig: Rig, mounts: Mapping[str, Mount]) -> Iterator[Finding]:
    """Find pairs of cameras that are exchanged or look the same way."""
    for first, second in combinations(mounts, 2):
        if _look_the_same_way(rig, first, second):
            yield _same_direction(mounts, first, second)
    gains = {
        pair: gain
        for pair in combinations(mounts, 2)
        if (gain := _swap_gain(mounts, *pair)) is not None and gain > SWAP_GAIN
    }
    taken: set[str] = set()
    for first, second in sorted(gains, key=gains.__getitem__, reverse=True):
        if first in taken or second in taken:
            continue
        taken.update((first, second))
        message = (
            f'{first} looks {describe_yaw(mounts[first].yaw)} and {second} {describe_yaw(mounts[second].yaw)}, which '
            'is where the name of the other one says: exchange the two calibrations (or images)'
        )
        yield Finding(first, 'swapped_cameras', message, second)


def _look_the_same_way(rig: Rig, first: str, second: str) -> bool:
    """Tell whether two cameras share a direction, and a field of view or a name that says another direction."""
    if is_stereo(first) and is_stereo(second):
        return False
    one, other = rig.cameras[first], rig.cameras[second]
    cosine = one.camera2ego[:3, 2] @ other.camera2ego[:3, 2]
    if np.rad2deg(np.arccos(np.clip(cosine, -1, 1))) > SAME_AXIS:
        return False
    same_view = bool(np.abs(fields_of_view(one) - fields_of_view(other)).max() < SAME_FOV)
    against_name = any(
        (named := direction_of(name)) is not None and not mount_of(rig.cameras[name].camera2ego).is_plausible(named)
        for name in (first, second)
    )
    return same_view or against_name


def _same_direction(mounts: Mapping[str, Mount], first: str, second: str) -> Finding:
    """Report two cameras that look the same way, under the one whose name fits that direction worse."""
    deviations = [
        0.0 if (named := direction_of(name)) is None else named.deviation(mounts[name].yaw) for name in (first, second)
    ]
    camera, other = (first, second) if deviations[0] > deviations[1] else (second, first)
    message = (
        f'{camera} and {other} both look {describe_yaw(mounts[camera].yaw)}: give each camera its own camera2ego. '
        'Where they are a stereo pair, this is right: put "stereo" into their names'
    )
    return Finding(camera, 'same_direction', message, other)


def _swap_gain(mounts: Mapping[str, Mount], first: str, second: str) -> float | None:
    """Return by how many degrees two cameras are nearer to the directions of their names if they are exchanged.

    Returns:
        The sum over both; None where a name says no direction, or the exchanged cameras do not fit their names.
    """
    of_first, of_second = direction_of(first), direction_of(second)
    if of_first is None or of_second is None:
        return None
    yaws = mounts[first].yaw, mounts[second].yaw
    exchanged = of_first.deviation(yaws[1]), of_second.deviation(yaws[0])
    if max(exchanged) > SWAP_TOLERANCE:
        return None
    return of_first.deviation(yaws[0]) + of_second.deviation(yaws[1]) - sum(exchanged)


def _frame_fault(mounts: Mapping[str, Mount]) -> Finding | None:
    """Find a rig in another frame than the vehicle's: one with y to the right, or one that is turned, as a LiDAR's."""
    directions = {
        name: (named, mount.yaw) for name, mount in mounts.items() if (named := direction_of(name)) is not None
    }
    if not all(mount.is_upright for mount in mounts.values()):
        return None
    sides = [(named, yaw) for named, yaw in directions.values() if named.yaw not in (0.0, 180.0)]
    if len(sides) >= MIRRORED_CAMERAS and _only_fit([(named, yaw, -yaw) for named, yaw in sides]):
        message = (
            'all cameras of the left look to the right and the other way round, as in a left-handed frame with y to '
            'the right: flip y of every translation and the sign of every yaw and roll (Camera.from_carla does)'
        )
        return Finding(None, 'left_handed', message)
    for turn in (-90.0, 90.0, 180.0):
        if len(directions) >= TURNED_CAMERAS and _only_fit([(*each, each[1] + turn) for each in directions.values()]):
            message = (
                f'all cameras look where their names say once the rig is turned by {turn:.0f} degrees, so camera2ego '
                'is in another frame, such as that of a LiDAR (x right, y forward): multiply it from the left by the '
                "pose of that frame in the vehicle's (x forward, y left, z up, on the ground), see Rig.moved"
            )
            return Finding(None, 'vehicle_axes', message)
    return None


def _only_fit(directions: Sequence[tuple[NamedDirection, float, float]]) -> bool:
    """Tell whether all yaws contradict the names of their cameras as given, and fit them once changed.

    Args:
        directions: for each camera what its name says, and its yaw in degrees as given and as changed.
    """
    return all(
        named.deviation(changed) <= SWAP_TOLERANCE < named.deviation(given) for named, given, changed in directions
    )


def fields_of_view(camera: Camera) -> np.ndarray:
    """Return the horizontal and the vertical field of view (2,) of a camera in degrees."""
    sides = np.array([[0.0, 0.0], camera.size]) - camera.intrinsics[:2, 2]
    angles = np.arctan2(sides, np.diag(camera.intrinsics)[:2])
    return np.rad2deg(angles[1] - angles[0])


def _intrinsics_faults(name: str, camera: Camera) -> Iterator[Finding]:
    """Find intrinsics that do not fit the size of the images."""
    width, height = camera.size
    centre = camera.intrinsics[:2, 2] / (width, height)
    sideways, upright = centre - 0.5
    is_scaled = (
        sideways * upright > 0
        and min(abs(sideways), abs(upright)) > LEAST_SCALED_SIDE
        and abs(sideways + upright) / 2 > SCALED_CENTRE
        and abs(sideways - upright) < SCALED_CENTRE_DIFFERENCE * 2 * centre.mean()
    )
    if is_scaled or abs(sideways) > MAX_CENTRE_SIDEWAYS or abs(upright) > MAX_CENTRE_UPRIGHT:
        fitting = np.round(2 * camera.intrinsics[:2, 2]).astype(int)
        message = (
            f'the principal point of {name} is at {centre[0]:.2f} of the width and {centre[1]:.2f} of the height of '
            f'images of {width} x {height}, so its intrinsics are for images of about {fitting[0]} x {fitting[1]}: '
            'make the camera with the size it was calibrated for, then call camera.resized or rig.resized'
        )
        yield Finding(name, 'intrinsics_resolution', message)
        return
    fov = fields_of_view(camera)
    if fov[0] < MIN_FOV or fov.max() > MAX_FOV:
        message = (
            f'{name} has a field of view of {fov[0]:.1f} x {fov[1]:.1f} degrees: focal lengths are in pixels of '
            f'images of {width} x {height}, and images of fisheye lenses have to be undistorted first'
        )
        yield Finding(name, 'field_of_view', message)
