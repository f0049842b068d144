"""Faults that show in how the images of a drive move, against its poses."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise

import numpy as np

from bevformer_plugin.deployment.rig import Rig

from .camera_names import angle_between
from .findings import Finding
from .image_motion import agreeing_features, mirrored_motion
from .mount import mount_of

# Between two frames, a turn has to be seen and leave something in both images: degrees.
LEAST_TURN, USUAL_TURN, MOST_TURN = 0.7, 3.0, 30.0
# A drive shows where a camera looks if near things move and stay in the image: metres.
LEAST_DRIVE, USUAL_DRIVE, MOST_DRIVE = 0.5, 2.0, 8.0
STEPS_FOR_TURNS, STEPS_FOR_DIRECTIONS = 4, 2  # pairs of frames that are looked at, since features take time to find
FEWEST_FOR_TURNS, FEWEST_FOR_DIRECTIONS = 20, 6  # features that must move as the fault predicts
MAJORITY = 3.0  # times the number of features that move as the given calibration predicts

MIRROR = ''  # stands for the camera's own calibration with left and right of the motion exchanged
Images = Mapping[str, np.ndarray]
Votes = Counter[tuple[str, str]]  # features of the first camera's images that moved as the second's calibration says


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
    votes = _votes(rig, frames, motions)
    return _turns(votes) or _exchanged(votes)


def _votes(rig: Rig, frames: Sequence[Images], motions: np.ndarray) -> Votes:
    """Count features that moved as a camera's own calibration says, as that of another one, or as in a mirror.

    All of these compete for a feature, because images of the back under the calibration of the front look much like a
    turn the other way round.

    Args:
        rig: the calibration.
        frames: n images by camera.
        motions: (n - 1, 4, 4) from the vehicle's frame to that at the next frame.

    Returns:
        Counts by the camera and the one whose calibration fits, or ``MIRROR``.
    """
    turns = np.rad2deg(np.abs(np.arctan2(motions[:, 1, 0], motions[:, 0, 0])))
    drives = np.linalg.norm(motions[:, :3, 3], axis=1)
    of_turns = _most_usual(turns, LEAST_TURN, USUAL_TURN, MOST_TURN)[:STEPS_FOR_TURNS]
    of_drives = _most_usual(drives, LEAST_DRIVE, USUAL_DRIVE, MOST_DRIVE)[:STEPS_FOR_DIRECTIONS]
    votes: Votes = Counter()
    for step in {*of_turns, *of_drives}:
        before, after = frames[step], frames[step + 1]
        both = [name for name in before if name in after]
        for name in both if step in of_drives else _along_the_vehicle(rig, both):
            camera, motion = rig.cameras[name], motions[step]
            others = [other for other in both if rig.cameras[other].size == camera.size]
            candidates = {other: (rig.cameras[other], motion) for other in others}
            if step in of_turns:
                candidates[MIRROR] = (camera, mirrored_motion(motion))
            if len(candidates) > 1:
                counts = agreeing_features((before[name], after[name]), list(candidates.values()))
                votes.update({(name, other): int(n) for other, n in zip(candidates, counts, strict=True)})
    return votes


def _turns(votes: Votes) -> list[Finding]:
    """Find poses of which the images say that left and right are exchanged."""
    mirrored = sum(count for (_, other), count in votes.items() if other == MIRROR)
    as_given = sum(votes[name, name] for name, other in list(votes) if other == MIRROR)
    if mirrored < FEWEST_FOR_TURNS or mirrored < MAJORITY * as_given:
        return []
    message = (
        f'the images turn the other way than the poses: {mirrored} features moved as with left and right exchanged, '
        f'{as_given} as the poses say: give yaw counter-clockwise, seen from above, and y to the left'
    )
    return [Finding(None, 'yaw_sign', message)]


def _exchanged(votes: Votes) -> list[Finding]:
    """Find pairs of cameras, each of which has images that move as those of the other one should."""

    def fits(name: str, other: str) -> bool:
        count = votes[name, other]
        return count >= FEWEST_FOR_DIRECTIONS and count > MAJORITY * max(votes[name, name], votes[name, MIRROR])

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


def _along_the_vehicle(rig: Rig, names: Sequence[str]) -> list[str]:
    """Choose the cameras that look most ahead and most back: there, turning differs most from driving."""
    yaws = {name: mount_of(rig.cameras[name].camera2ego).yaw for name in names}
    if not yaws:
        return []
    return list({min(yaws, key=lambda name: angle_between(yaws[name], yaw)) for yaw in (0.0, 180.0)})


def _most_usual(amounts: np.ndarray, least: float, usual: float, most: float) -> list[int]:
    """Return the steps whose amounts lie between two limits, the most usual first."""
    steps = np.flatnonzero((amounts >= least) & (amounts <= most)).tolist()
    return sorted(steps, key=lambda step: abs(np.log(amounts[step] / usual)))
