"""Faults of the poses and timestamps of a vehicle's frames."""

from collections.abc import Iterator

import numpy as np

from .findings import Finding

MAX_SPEED = 60.0  # m/s
MAX_STEP = 60.0  # metres between frames of unknown times, which are at most a second apart
UNITS = {'milliseconds': 1e-3, 'microseconds': 1e-6, 'nanoseconds': 1e-9}
THIS_CENTURY = (9.4e8, 4.2e9)  # seconds since 1970
MAX_GAP = 30.0  # seconds between frames, of which there are up to a thousand a second
MIN_GAP = 1e-3
# A vehicle moves where it heads, seen over steps that are longer than the errors of a position.
SHORTEST_STEP = 0.5  # metres
LONGEST_LEVER = 4.5  # metres from the rear axle, which moves straight ahead, to the origin of a vehicle's frame
FEWEST_STEPS, FEWEST_STEPS_OF_A_TURN = 2, 4
# Degrees between heading and movement: more than the first is no driving, less than the second is.
SIDEWAYS, ALIGNED = 30.0, 15.0
LEAST_TURN = 8.0  # degrees of all turns together; less does not tell a direction


def timestamp_faults(timestamps: np.ndarray) -> tuple[list[Finding], np.ndarray]:
    """Find timestamps in another unit than seconds, and time that does not go on.

    Args:
        timestamps: (n,) as given.

    Returns:
        The findings, and the timestamps in seconds.
    """
    findings = []
    unit = _unit_of(timestamps)
    if unit is not None:
        message = f'timestamps are {unit}, such as {timestamps[-1]:.0f}: give seconds, these times {UNITS[unit]:g}'
        findings.append(Finding(None, 'timestamp_unit', message))
        timestamps = timestamps * UNITS[unit]
    backwards = np.flatnonzero(np.diff(timestamps) <= 0)
    if len(backwards):
        message = (
            f'the timestamp of frame {backwards[0] + 1} is {-np.diff(timestamps)[backwards[0]]:.3f} s before that of '
            f'the frame before it ({len(backwards)} such steps): give frames in the order of their times, each once'
        )
        findings.append(Finding(None, 'time_order', message))
    return findings, timestamps


def _unit_of(timestamps: np.ndarray) -> str | None:
    """Tell the unit of timestamps, None for seconds: by the date if they count from 1970, else by the gaps."""
    if THIS_CENTURY[0] <= timestamps[0] <= THIS_CENTURY[1]:
        return None
    for unit, seconds in UNITS.items():
        if THIS_CENTURY[0] <= timestamps[0] * seconds <= THIS_CENTURY[1]:
            return unit
    gaps = np.abs(np.diff(timestamps))
    gap = float(np.median(gaps)) if len(gaps) else 0.0
    if gap <= MAX_GAP:
        return None
    fitting = [unit for unit, seconds in UNITS.items() if MIN_GAP <= gap * seconds <= MAX_GAP]
    # Frames are nearer to ten a second than to one in ten seconds or a thousand a second.
    return min(fitting, key=lambda unit: abs(np.log10(gap * UNITS[unit] / 0.1)), default=None)


def pose_faults(poses: np.ndarray, seconds: np.ndarray | None) -> list[Finding]:
    """Find what looks wrong with poses, without images.

    Args:
        poses: (n, 4, 4) ego2global, metres.
        seconds: (n,) times of the frames, or None.
    """
    findings = [*_jumps(poses, seconds)]
    downwards = -np.median(poses[:, 2, 1])  # the y axes' share of down
    if np.median(np.abs(poses[:, 2, 2])) < 0.5:
        axes = 'its y axis points down, as of the optical axes of a camera' if downwards > 0.5 else 'and not up'
        message = (
            f'the z axis of the poses lies level, {axes}: give the pose of the vehicle (x forward, y left, z up), '
            'ego2global = camera2global @ inverse(camera2ego)'
        )
        findings.append(Finding(None, 'camera_pose', message))
    else:
        findings += _heading_faults(poses, {step for step, _ in _jump_steps(poses, seconds)})
    return findings


def _jump_steps(poses: np.ndarray, seconds: np.ndarray | None) -> list[tuple[int, float]]:
    """Return the steps that are too long for a vehicle, each with its m/s (without times: its metres)."""
    distances = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
    if seconds is None:
        return [(step, float(distances[step])) for step in np.flatnonzero(distances > MAX_STEP).tolist()]
    gaps = np.diff(seconds)
    speeds = np.divide(distances, gaps, out=np.zeros_like(distances), where=gaps > 0)
    return [(step, float(speeds[step])) for step in np.flatnonzero(speeds > MAX_SPEED).tolist()]


def _jumps(poses: np.ndarray, seconds: np.ndarray | None) -> Iterator[Finding]:
    steps = _jump_steps(poses, seconds)
    if not steps:
        return
    step, amount = steps[0]
    much = f'{amount:.0f} m' if seconds is None else f'at {amount:.0f} m/s'
    message = (
        f'the pose jumps {much} from frame {step} to frame {step + 1} ({len(steps)} such steps): positions are metres '
        f'in one global frame; vehicles stay below {MAX_SPEED:.0f} m/s. Begin a new state where a new drive begins'
    )
    yield Finding(None, 'pose_jump', message)


def yaw_unit_faults(planar: np.ndarray) -> list[Finding]:
    """Find planar poses (n, 3) of x, y and yaw whose yaw is degrees, by where the vehicle moves."""
    steps = np.diff(planar[:, :2], axis=0)
    long = _driving_steps(steps, np.deg2rad(planar[:, 2]))
    if len(long) < FEWEST_STEPS or np.abs(planar[:, 2]).max() < 2 * np.pi:
        return []
    directions = np.arctan2(steps[long, 1], steps[long, 0])
    middle = (planar[1:, 2] + planar[:-1, 2])[long] / 2
    given, converted = (float(np.median(_off_axis(directions - yaw))) for yaw in (middle, np.deg2rad(middle)))
    if given < SIDEWAYS or converted > ALIGNED:
        return []
    message = (
        f'the yaw of the poses, such as {planar[-1, 2]:.1f}, is degrees: it is {given:.0f} degrees off the way the '
        f'vehicle moves as radians and {converted:.0f} as degrees: pass np.deg2rad of it'
    )
    return [Finding(None, 'degrees_for_radians', message)]


def _heading_faults(poses: np.ndarray, jumps: set[int]) -> list[Finding]:
    """Find headings that are not where the vehicle moves, or turn against the way it moves."""
    steps = np.diff(poses[:, :2, 3], axis=0)
    headings = np.unwrap(np.arctan2(poses[:, 1, 0], poses[:, 0, 0]))
    long = np.array([step for step in _driving_steps(steps, headings) if step not in jumps], dtype=int)
    if len(long) < FEWEST_STEPS:
        return []
    middle = (headings[1:] + headings[:-1])[long] / 2  # a chord of an arc has the heading of its middle
    directions = np.arctan2(steps[long, 1], steps[long, 0])
    given, negated, across = (
        float(np.median(_off_axis(directions - heading))) for heading in (middle, -middle, middle + np.pi / 2)
    )
    turns, bends = _folded(np.diff(middle)), _folded(np.diff(directions))
    bending = float(np.rad2deg(np.abs(bends).sum()))
    follows = float((turns * bends).sum() / max((bends**2).sum(), 1e-12))
    mirrored = len(long) >= FEWEST_STEPS_OF_A_TURN and bending > LEAST_TURN and follows < -0.5
    if mirrored or (given > SIDEWAYS and negated < ALIGNED and negated < across):
        message = (
            f'the heading turns against the way the vehicle moves (off by {given:.0f} degrees, with the opposite yaw '
            f'by {negated:.0f}): give yaw counter-clockwise from the global x axis, seen from above, or its opposite '
            '(the transposed rotation) where it is now global2ego'
        )
        return [Finding(None, 'yaw_sign', message)]
    if given > SIDEWAYS and across < ALIGNED:
        message = (
            f'the vehicle moves {given:.0f} degrees off its x axis, so the poses are those of a camera or LiDAR with '
            'x to the side: give the pose of the vehicle (x forward, y left, z up), ego2global = sensor2global @ '
            'inverse(sensor2ego)'
        )
        return [Finding(None, 'camera_pose', message)]
    return []


def _driving_steps(steps: np.ndarray, headings: np.ndarray) -> np.ndarray:
    """Choose the steps (n - 1, 2) in which a vehicle drives, rather than turns about an axle far from its origin."""
    distances = np.linalg.norm(steps, axis=1)
    return np.flatnonzero((distances > SHORTEST_STEP) & (distances > LONGEST_LEVER * np.abs(np.diff(headings))))


def _off_axis(angles: np.ndarray) -> np.ndarray:
    """Return the degrees, from 0 to 90, of angles from a line; a vehicle drives forwards or backwards."""
    return np.rad2deg(np.abs(_folded(angles)))


def _folded(angles: np.ndarray) -> np.ndarray:
    """Bring angles into -90 to 90 degrees (radians), as of lines without a direction."""
    return (angles + np.pi / 2) % np.pi - np.pi / 2
