"""Whether a calibration, its images, poses and timestamps can be right, in plain words."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from bevformer_plugin.deployment.rig import Rig, require_bgr
from bevformer_plugin.deployment.vehicle_pose import ego2global_of
from bevformer_plugin.errors import InputError

from .calibration_faults import calibration_faults
from .findings import FAULTS, Finding
from .image_faults import image_faults
from .motion_faults import pose_faults, timestamp_faults, yaw_unit_faults

Images = Mapping[str, np.ndarray | None]


def check_rig(
    rig: Rig,
    images: Images | Sequence[Images] | None = None,
    poses: Sequence[ArrayLike] | np.ndarray | None = None,
    timestamps: Sequence[float] | np.ndarray | None = None,
) -> list[Finding]:
    """Say what looks wrong with a rig and what to do about it; ``FAULTS`` has all that can be found.

    If a camera has a pose that no camera of a vehicle has, the usual mistakes are undone one at a time. The mistake
    without which the camera is upright, at the height of the others and in the direction of its name is reported.
    :func:`.drawing.draw_rig` shows the same to the eye.

    What cannot be found: a mistake that changes a camera by a few degrees (a camera that looks exactly ahead has the
    same quaternion in either order, one to the right a symmetric rotation), which three angles in degrees often do;
    wrong yaws and exchanged cameras without names such as front, rear_left or FR (exchanged ones are found in the
    images of a drive, with poses); planar poses of a camera that looks ahead; yaw of the wrong sign on a straight
    road, and, where y is mirrored with it, without images. Cameras are taken as mounted upright, within 8 degrees. Two
    cameras with one axis within 4 degrees and fields of view within 6 are reported, a tele beside a wide camera is
    not; a stereo pair is, unless both names say 'stereo'.

    Args:
        rig: the cameras.
        images: (H, W, 3) uint8 BGR by camera (None for a missing one), of one frame, or a sequence of such, one for
            each pose. Their sizes are compared with the rig's, and the way they move with the poses, in some seconds.
        poses: ego2global of each frame in time order, each (4, 4), or planar (x, y, yaw) in metres and radians.
        timestamps: of each frame, seconds.

    Returns:
        What looks wrong, in the order of ``FAULTS``; empty where nothing does.

    Raises:
        InputError: if something is of another type or shape, an image is of an unknown camera, or the numbers of
            images, poses and timestamps differ.
    """
    if not isinstance(rig, Rig):
        raise InputError(f'rig is a Rig of cameras, got {type(rig).__name__}: Rig.from_file reads one')
    frames = read_images(images, rig)
    matrices = None if poses is None else _read_poses(poses)
    times = None if timestamps is None else _read_timestamps(timestamps)
    _check_numbers(images, matrices, times)
    of_rig = list(calibration_faults(rig))
    rescaled = {finding.camera for finding in of_rig if finding.fault == 'intrinsics_resolution'}
    of_rig += [finding for finding in _size_faults(rig, frames) if finding.camera not in rescaled]
    findings = list(of_rig)
    if times is not None:
        of_times, times = timestamp_faults(times)
        findings += of_times
    if poses is not None and matrices is not None:
        of_poses = _yaw_unit_faults(poses) or pose_faults(matrices, times)
        # Images tell something only where poses and the frame of the rig are right.
        if len(frames) > 1 and not of_poses and all(finding.camera is not None for finding in of_rig):
            sound = [name for name in rig.cameras if name not in _cameras_of(of_rig)]
            of_poses = image_faults(rig, sound, frames, matrices)
        findings += of_poses
    order = list(FAULTS)
    return sorted(findings, key=lambda finding: order.index(finding.fault))


def _yaw_unit_faults(poses: Sequence[ArrayLike] | np.ndarray) -> list[Finding]:
    """Look at the yaws of poses that all are planar."""
    arrays = [np.array(pose, dtype=np.float64) for pose in poses]
    return yaw_unit_faults(np.stack(arrays)) if all(array.shape == (3,) for array in arrays) else []


def _cameras_of(findings: Sequence[Finding]) -> set[str]:
    """Return the cameras that findings are about; one about two cameras exchanged or alike names both."""
    return {name for finding in findings for name in (finding.camera, finding.other_camera) if name is not None}


def _size_faults(rig: Rig, frames: Sequence[Mapping[str, np.ndarray]]) -> list[Finding]:
    """Find images of another size than the intrinsics are for."""
    findings = []
    for name, camera in rig.cameras.items():
        sizes = {(image.shape[1], image.shape[0]) for frame in frames if (image := frame.get(name)) is not None}
        other = sorted(sizes - {camera.size})
        if other:
            message = (
                f'images of {name} are {other[0][0]} x {other[0][1]}, its calibration is for {camera.size[0]} x '
                f'{camera.size[1]}: rig.resized(({other[0][0]}, {other[0][1]})) brings the intrinsics along if the '
                'images were resized; if they were cut, move the principal point'
            )
            findings.append(Finding(name, 'intrinsics_resolution', message))
    return findings


def read_images(images: Images | Sequence[Images] | None, rig: Rig) -> list[dict[str, np.ndarray]]:
    """Bring images of one frame, or of several, into a list of frames; their sizes may differ from the rig's.

    Args:
        images: by camera, or a sequence of such.
        rig: the cameras that there may be images of.

    Raises:
        InputError: if they are no images by camera, or of a camera that the rig lacks.
    """
    if images is None:
        return []
    frames = [images] if isinstance(images, Mapping) else images
    if isinstance(frames, str | np.ndarray) or not isinstance(frames, Sequence):
        raise InputError(
            f'images are a mapping of camera names to arrays, or a sequence of such, got {type(images).__name__}'
        )
    for number, frame in enumerate(frames):
        if not isinstance(frame, Mapping):
            raise InputError(f'images of frame {number} are a mapping of names to arrays, got {type(frame).__name__}')
        unknown = sorted(str(name) for name in frame if name not in rig.cameras)
        if unknown:
            raise InputError(
                f'images of frame {number} are of {", ".join(unknown)}, which the rig lacks; it has '
                f'{", ".join(rig.cameras)}'
            )
    return [{name: require_bgr(name, image) for name, image in frame.items() if image is not None} for frame in frames]


def _read_poses(poses: Sequence[ArrayLike] | np.ndarray) -> np.ndarray:
    """Bring poses to (n, 4, 4) float64.

    Raises:
        InputError: naming the pose that is none.
    """
    if isinstance(poses, str | Mapping) or not isinstance(poses, Sequence | np.ndarray) or not len(poses):
        raise InputError(f'poses are a sequence with one pose for each frame, got {_short(poses)}')
    return np.stack([ego2global_of(pose, f'pose {number}') for number, pose in enumerate(poses)])


def _read_timestamps(timestamps: Sequence[float] | np.ndarray) -> np.ndarray:
    try:
        times = np.array(timestamps, dtype=np.float64)
    except (TypeError, ValueError):
        times = np.empty((0, 0))
    if times.ndim != 1 or not len(times) or not np.isfinite(times).all():
        raise InputError(f'timestamps are finite seconds, one for each frame, got {_short(timestamps)}')
    return times


def _check_numbers(
    images: Images | Sequence[Images] | None, poses: np.ndarray | None, timestamps: np.ndarray | None
) -> None:
    """Refuse images, poses and timestamps of different numbers of frames; one mapping of images is of any frame."""
    numbers = {
        'frames of images': None if images is None or isinstance(images, Mapping) else len(images),
        'poses': None if poses is None else len(poses),
        'timestamps': None if timestamps is None else len(timestamps),
    }
    given = {what: number for what, number in numbers.items() if number is not None}
    if len(set(given.values())) > 1:
        counts = ', '.join(f'{number} {what}' for what, number in given.items())
        raise InputError(f'there is one of each for every frame, got {counts}')


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f'{text[:97]}...'
