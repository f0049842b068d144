"""Whether true boxes, LiDAR points and the vehicle's poses agree: each is compared with another.

Points in boxes are counted again and compared with the tables' numbers, for the boxes as they are and as other
conventions would read them. Points of one frame are carried into the next one by the poses, and compared with the
points there. Parked things have to stay where they are.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy.spatial import KDTree

from .page import Line, note, ok, wrong

POINT_VALUES = 5  # of a point in a nuScenes file: x, y, z, intensity, ring
PAIRS = 16  # of frames, at most, spread over the entries
LEAST_POINTS = 5  # in a box whose points are counted again
BORDER = 0.05  # metres by which a box is widened for counting
CLEARLY = 0.03  # share of points by which another reading of boxes or poses must be better
NEAR_GROUND = -1.2  # metres in the LiDAR's frame; below it is the road, which looks alike wherever the vehicle is
CARRIED = 2000  # points of a frame, about, that are carried into the next one
REACH = (3.0, 50.0)  # metres from the LiDAR, of points that are carried into the next frame
LEAST_PAIRS = 3  # pairs of frames in which the vehicle stands; fewer prove nothing
SAME_PLACE = 0.3  # metres between a carried point and the nearest one
LEAST_MOTION = 1.0  # metres; a shorter motion does not tell right poses from wrong ones
LARGEST_DRIFT = 0.5  # metres from keyframe to keyframe, of a thing that does not move
STATIC = ('vehicle.parked',)  # attributes of what stands still
STATIC_CLASSES = ('barrier', 'traffic_cone')


AS_GIVEN = 'taken as they are'
# How a box (x, y, z, l, w, h, yaw) of the infos may have to be read. A box whose length and width have changed places
# is also one whose yaw is off by a quarter, so each of these names two mistakes.
READINGS: dict[str, Callable[[list[float]], list[float]]] = {
    AS_GIVEN: lambda box: box,
    'length and width change places': lambda box: [*box[:3], box[4], box[3], *box[5:]],
    'yaw is counted clockwise, as by mmdetection3d before 1.0': lambda box: [*box[:6], -box[6]],
    'z is that of the bottom': lambda box: [*box[:2], box[2] + box[5] / 2, *box[3:]],
    'x and y are forward and left': lambda box: [-box[1], box[0], *box[2:6], box[6] + np.pi / 2],
}
STANDING = 'the vehicle stands still'
# How a pose (4, 4) may have to be read.
POSES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    AS_GIVEN: lambda pose: pose,
    STANDING: lambda pose: np.eye(4),
    'the poses are inverted': np.linalg.inv,
    'their yaw has the other sign': lambda pose: np.block([[pose[:2, :2].T, pose[:2, 2:]], [pose[2:]]]),
}
DRIVES = np.arange(1.0, 15.1)  # metres between two keyframes


@dataclass(frozen=True)
class Scan:
    """A keyframe with its LiDAR points.

    Attributes:
        entry: of the infos.
        points: (n, 5) float32: x, y, z in metres of the LiDAR's frame, intensity, ring.
    """

    entry: dict
    points: np.ndarray


def read_scans(root: Path, entries: list[dict]) -> list[tuple[Scan, Scan]]:
    """Read the LiDAR points of some pairs of successive keyframes, spread over the entries.

    Args:
        root: dataroot.
        entries: in this plugin's format.

    Returns:
        Pairs of frames of a scene; none if no two successive keyframes have a LiDAR file.
    """
    by_token = {entry['token']: entry for entry in entries}
    pairs = [
        (entry, by_token[entry['next']])
        for entry in entries
        if entry['next'] in by_token and all(_file(root, some) for some in (entry, by_token[entry['next']]))
    ]
    chosen = np.unique(np.linspace(0, len(pairs) - 1, min(PAIRS, len(pairs))).round().astype(int)) if pairs else []
    scans: list[tuple[Scan, Scan]] = []
    for index in chosen:
        first, second = (Scan(entry, _points(root, entry)) for entry in pairs[index])
        if len(first.points) and len(second.points):
            scans.append((first, second))
    return scans


def _file(root: Path, entry: dict) -> bool:
    path = entry['lidar_points'].get('lidar_path')
    return bool(path) and Path(root, path).is_file()


def _points(root: Path, entry: dict) -> np.ndarray:
    """Return the finite points (n, 5) of an entry's file; none if it is not made of rows of five numbers."""
    values = np.fromfile(Path(root, entry['lidar_points']['lidar_path']), dtype=np.float32)
    if len(values) % POINT_VALUES:
        return np.zeros((0, POINT_VALUES), dtype=np.float32)
    points = values.reshape(-1, POINT_VALUES)
    return points[np.isfinite(points).all(1)]


def examine_boxes(scans: Iterable[tuple[Scan, Scan]]) -> Line:
    """Count the LiDAR points in the true boxes again, also as other conventions would read the boxes."""
    counts = dict.fromkeys(READINGS, 0)
    total = boxes = 0
    for scan in scans_of(scans):
        for instance in scan.entry['instances']:
            wanted = instance['num_lidar_pts']
            if wanted < LEAST_POINTS:
                continue
            total, boxes = total + wanted, boxes + 1
            box = instance['bbox_3d']
            for name, read in READINGS.items():
                counts[name] += min(wanted, _points_inside(scan.points, read(box)))
    if not total:
        return note('boxes', f'no box with {LEAST_POINTS} LiDAR points: not compared with the points')
    shares = {name: count / total for name, count in counts.items()}
    best = max(shares, key=lambda name: shares[name])
    found = f'{shares[AS_GIVEN]:.0%} of the {total} points that the tables say are in {boxes} boxes'
    if shares[best] > shares[AS_GIVEN] + CLEARLY:
        return wrong(
            'boxes',
            f'hold {found}, but {shares[best]:.0%} if {best}: mend the boxes (x, y, z of the centre, length, width, '
            'height, yaw in the LiDAR frame), or convert the infos with tools/create_data.py convert',
        )
    if shares[AS_GIVEN] < 0.5:
        return wrong(
            'boxes',
            f'hold {found}: boxes and points are not in one frame; look at translation and rotation of LIDAR_TOP in '
            'calibrated_sensor.json and at the poses in ego_pose.json',
        )
    return ok('boxes', f'hold {found}')


def _points_inside(points: np.ndarray, box: list[float]) -> int:
    """Count how many of (n, 5) points lie in a box (x, y, z of the centre, l, w, h, yaw)."""
    x, y, _, length, width, height, yaw = box
    reach = (length + width) / 2 + BORDER
    near = (np.abs(points[:, 0] - x) < reach) & (np.abs(points[:, 1] - y) < reach)
    offsets = points[near, :3] - np.array(box[:3], dtype=np.float32)
    cos, sin = np.cos(yaw), np.sin(yaw)
    along, across = offsets[:, 0] * cos + offsets[:, 1] * sin, offsets[:, 1] * cos - offsets[:, 0] * sin
    inside = (
        (np.abs(along) <= length / 2 + BORDER)
        & (np.abs(across) <= width / 2 + BORDER)
        & (np.abs(offsets[:, 2]) <= height / 2 + BORDER)
    )
    return int(inside.sum())


def examine_motion(scans: Iterable[tuple[Scan, Scan]]) -> Line:
    """Carry the points of each first frame into the second one by the poses, and by what wrong poses would do.

    Where the poses say that the vehicle moves, they are compared with their usual mistakes, and where they say that it
    stands, with a vehicle that drives straight on.
    """
    moving: dict[str, list[float]] = {name: [] for name in POSES}
    standing: list[tuple[float, float]] = []  # metres that fit best, and by how much better than 0
    for first, second in scans:
        before, after = (_landmarks(scan.points) for scan in (first, second))
        if not len(before) or not len(after):
            continue
        before, tree = before[:: len(before) // CARRIED + 1], KDTree(after)
        motion = _motion(first, second, POSES[AS_GIVEN])
        if np.linalg.norm(motion[:3, 3]) >= LEAST_MOTION:
            for name, read in POSES.items():
                moving[name].append(_share_met(before, _motion(first, second, read), tree))
        else:
            driven = [_share_met(before - [0, metres, 0], motion, tree) for metres in DRIVES]  # y is forward
            standing.append((float(DRIVES[int(np.argmax(driven))]), max(driven) - _share_met(before, motion, tree)))
    if len(standing) >= LEAST_PAIRS and np.mean([gain for _, gain in standing]) > CLEARLY:
        return wrong(
            'poses',
            f'say that the vehicle stands still in {len(standing)} pairs of frames, but their points fit better if it '
            f'drives {np.median([metres for metres, _ in standing]):g} m: write its motion into ego_pose.json',
        )
    if not moving[AS_GIVEN]:
        return note('poses', f'the vehicle moves less than {LEAST_MOTION:g} m in the frames chosen: hardly compared')
    share, still = (float(np.mean(moving[name])) for name in (AS_GIVEN, STANDING))
    found = f'{share:.0%} of the points of a frame meet one of the next in {len(moving[AS_GIVEN])} pairs of frames'
    better = _better(moving)
    if better is not None:
        return wrong('poses', f'{found}, but more if {better}: mend translation and rotation in ego_pose.json')
    return ok('poses', f'{found}; {still:.0%} if the vehicle stood still')


def _motion(first: Scan, second: Scan, read: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return the motion (4, 4) from one LiDAR frame to another, by poses that are read in some way."""
    old, new = (
        read(np.array(scan.entry['ego2global'])) @ np.array(scan.entry['lidar_points']['lidar2ego'])
        for scan in (first, second)
    )
    return np.linalg.inv(new) @ old


def _better(shares: dict[str, list[float]]) -> str | None:
    """Return what fits clearly better than the poses as they are, with its share; None if nothing does."""
    means = {name: float(np.mean(values)) for name, values in shares.items()}
    best = max(means, key=lambda name: means[name])
    return f'{best} ({means[best]:.0%})' if means[best] > means[AS_GIVEN] + CLEARLY else None


def _landmarks(points: np.ndarray) -> np.ndarray:
    """Return the points (m, 3) that stand on the ground not too far away."""
    distances = np.linalg.norm(points[:, :2], axis=1)
    return points[(distances > REACH[0]) & (distances < REACH[1]) & (points[:, 2] > NEAR_GROUND), :3]


def _share_met(points: np.ndarray, motion: np.ndarray, tree: KDTree) -> float:
    """Return which share of points, moved, has a point of the tree near it."""
    moved = points @ motion[:3, :3].T + motion[:3, 3]
    return float((tree.query(moved, distance_upper_bound=SAME_PLACE)[0] < SAME_PLACE).mean())


def scans_of(scans: Iterable[tuple[Scan, Scan]]) -> list[Scan]:
    """Return the scans of all pairs, each once."""
    return list({scan.entry['token']: scan for pair in scans for scan in pair}.values())


def lidar2global(entry: dict) -> np.ndarray:
    """Return the motion (4, 4) from the LiDAR's frame of an entry to the global one."""
    return np.array(entry['ego2global']) @ np.array(entry['lidar_points']['lidar2ego'])


def examine_standing(entries: list[dict], categories: dict[str, int]) -> Line:
    """Compare where things that do not move are in successive keyframes, in the global frame.

    Args:
        entries: in this plugin's format.
        categories: label of each class name.
    """
    labels = {categories[name] for name in STATIC_CLASSES if name in categories}
    in_global: list[float] = []
    in_lidar: list[float] = []
    for first, second in pairwise(entries):
        if first['next'] != second['token']:
            continue
        before, after = (_standing(entry, labels) for entry in (first, second))
        shared = [token for token in before if token in after]
        if not shared or np.linalg.norm((lidar2global(second) - lidar2global(first))[:3, 3]) < LEAST_MOTION:
            continue
        old, new = (np.array([boxes[token] for token in shared]) for boxes in (before, after))
        in_lidar += np.linalg.norm((new - old)[:, :2], axis=1).tolist()
        moved = [_moved_by(lidar2global(entry), boxes) for entry, boxes in ((first, old), (second, new))]
        in_global += np.linalg.norm((moved[1] - moved[0])[:, :2], axis=1).tolist()
    if not in_global:
        return note('parked things', 'no parked vehicle, barrier or cone in two successive frames of a moving vehicle')
    drift, still = float(np.median(in_global)), float(np.median(in_lidar))
    found = f'move by {drift:.2f} m from keyframe to keyframe in the global frame (median of {len(in_global)})'
    if drift <= LARGEST_DRIFT:
        return ok('parked things', found)
    if still < drift / 2:
        return wrong(
            'parked things',
            f'{found} and by {still:.2f} m in the frame of the LiDAR: translation and rotation in '
            'sample_annotation.json seem to be given in the frame of the vehicle, and have to be in the global one',
        )
    return wrong('parked things', f'{found}: boxes and poses are not of one global frame, or of different times')


def _standing(entry: dict, labels: set[int]) -> dict[str, list[float]]:
    """Return the centres of the things that do not move in an entry by the token of the thing."""
    return {
        instance['instance_token']: instance['bbox_3d'][:3]
        for instance in entry['instances']
        if instance.get('instance_token')
        and (instance['bbox_label_3d'] in labels or instance.get('attribute') in STATIC)
    }


def _moved_by(motion: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Move points (n, 3) by a motion (4, 4)."""
    return points @ motion[:3, :3].T + motion[:3, 3]
