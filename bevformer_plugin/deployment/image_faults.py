"""Faults that show in how the images of a drive move, against its poses."""

from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise

import numpy as np

from .camera_names import angle_between
from .image_motion import agreeing_features, mirrored_motion
from .mount import mount_of
from .rig import Rig
from .rig_findings import Finding

# Between two frames, a turn has to be seen and leave something in both images: degrees.
LEAST_TURN, USUAL_TURN, MOST_TURN = 0.7, 3.0, 30.0
# A drive shows where a camera looks if near things move and stay in the image: metres.
LEAST_DRIVE, USUAL_DRIVE, MOST_DRIVE = 0.5, 2.0, 8.0
STEPS_FOR_TURNS, STEPS_FOR_DIRECTIONS = 4, 2  # pairs of frames that are looked at, since features take time to find
FEWEST_FOR_TURNS, FEWEST_FOR_DIRECTIONS = 20, 6  # features that have to move as with the fault
MAJORITY = 3.0  # how many times more of them there have to be than those that move as without

Images = Mapping[str, np.ndarray]


def image_faults(rig: Rig, names: Sequence[str], images: Sequence[Images], poses: np.ndarray) -> list[Finding]:
    """Find poses that turn the other way than the images, and images that two cameras have exchanged.

    Args:
        rig: the calibration.
        names: of the cameras whose calibration looks right.
        images: of each frame (H, W, 3) uint8 BGR by camera; those of other sizes than the rig's are not looked at.
        poses: (n, 4, 4) ego2global of the frames, metres.
    """
    frames = [
        {name: frame[name] for name in names if name in frame and frame[name].shape[1::-1] == rig.cameras[name].size}
        for frame in images
    ]
    motions = np.stack([np.linalg.inv(after) @ before for before, after in pairwise(poses)])
    return _turns(rig, frames, motions) or _exchanged(rig, frames, motions)


def _turns(rig: Rig, frames: Sequence[Images], motions: np.ndarray) -> list[Finding]:
    """Find poses of which the images say that left and right are exchanged.

    Args:
        rig: the calibration.
        frames: n images by camera.
        motions: (n - 1, 4, 4) from the vehicle's frame to that at the next frame.
    """
    turns = np.rad2deg(np.abs(np.arctan2(motions[:, 1, 0], motions[:, 0, 0])))
    as_given = mirrored = 0
    for step in _most_usual(turns, LEAST_TURN, USUAL_TURN, MOST_TURN)[:STEPS_FOR_TURNS]:
        before, after = frames[step], frames[step + 1]
        for name in _along_the_vehicle(rig, [name for name in before if name in after]):
            camera, motion = rig.cameras[name], motions[step]
            candidates = [(camera, motion), (camera, mirrored_motion(motion))]
            votes = agreeing_features((before[name], after[name]), candidates)
            as_given, mirrored = as_given + int(votes[0]), mirrored + int(votes[1])
    if mirrored < FEWEST_FOR_TURNS or mirrored < MAJORITY * as_given:
        return []
    message = (
        f'the images turn the other way than the poses: {mirrored} features moved as with left and right exchanged, '
        f'{as_given} as the poses say: give yaw counter-clockwise, seen from above, and y to the left'
    )
    return [Finding(None, 'yaw_sign', message)]


def _along_the_vehicle(rig: Rig, names: Sequence[str]) -> list[str]:
    """Choose the cameras that look most ahead and most back: there, turning differs most from driving."""
    yaws = {name: mount_of(rig.cameras[name].camera2ego).yaw for name in names}
    if not yaws:
        return []
    return list({min(yaws, key=lambda name: angle_between(yaws[name], yaw)) for yaw in (0.0, 180.0)})


def _exchanged(rig: Rig, frames: Sequence[Images], motions: np.ndarray) -> list[Finding]:
    """Find pairs of cameras, each of which has images that move as those of the other one should.

    Args:
        rig: the calibration.
        frames: n images by camera.
        motions: (n - 1, 4, 4) from the vehicle's frame to that at the next frame.
    """
    drives = np.linalg.norm(motions[:, :3, 3], axis=1)
    votes: dict[tuple[str, str], int] = {}  # features of the first camera's images that fit the second's calibration
    for step in _most_usual(drives, LEAST_DRIVE, USUAL_DRIVE, MOST_DRIVE)[:STEPS_FOR_DIRECTIONS]:
        before, after = frames[step], frames[step + 1]
        both = [name for name in before if name in after]
        for name in both:
            others = [other for other in both if rig.cameras[other].size == rig.cameras[name].size]
            if len(others) < 2:
                continue
            candidates = [(rig.cameras[other], motions[step]) for other in others]
            for other, count in zip(others, agreeing_features((before[name], after[name]), candidates), strict=True):
                votes[name, other] = votes.get((name, other), 0) + int(count)

    def fits(name: str, other: str) -> bool:
        count = votes.get((name, other), 0)
        return count >= FEWEST_FOR_DIRECTIONS and count > MAJORITY * votes[name, name]

    cameras = list(dict.fromkeys(name for name, _ in votes))
    return [
        Finding(
            first,
            'swapped_cameras',
            f'the images of {first} move as those of {second} should, and the other way round: exchange the images '
            '(or calibrations) of the two',
            second,
        )
        for first, second in combinations(cameras, 2)
        if fits(first, second) and fits(second, first)
    ]


def _most_usual(amounts: np.ndarray, least: float, usual: float, most: float) -> list[int]:
    """Return the steps whose amounts lie between two limits, the most usual first."""
    steps = np.flatnonzero((amounts >= least) & (amounts <= most)).tolist()
    return sorted(steps, key=lambda step: abs(np.log(amounts[step] / usual)))
