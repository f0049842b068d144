"""Point clouds of LIDAR_TOP: rays are cast against the ground and the solids of all actors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bevformer_plugin.synthetic.objects import KINDS, POSITION_DECIMALS
from bevformer_plugin.synthetic.rig import LIDAR, ego_to_global
from bevformer_plugin.synthetic.scenario import Scenario

AZIMUTHS = 720  # rays of a ring
ELEVATIONS = np.deg2rad(np.concatenate([np.linspace(-30, -11, 8), np.linspace(-10, 2, 25), np.linspace(3, 9, 5)]))
REACH = 65.0  # metres on the ground plan
GROUND_EVERY, SCENERY_EVERY = 8, 4  # one ray in so many is kept; those that end in an annotated object all are
SMALLEST_HALF_WIDTH = 0.14  # metres; thinner parts of an actor are widened to it
DEPTH_INTO_SURFACE = 0.03  # metres that a point is moved along its ray, so that it lies inside the object's box
RANGE_SIGMA = 0.008  # metres of measurement noise


def scan(scenario: Scenario, timestamp: int, rng: np.random.Generator) -> np.ndarray:
    """Take one turn of the lidar.

    Args:
        scenario: the scene.
        timestamp: microseconds.
        rng: source of the noise.

    Returns:
        (n, 5) float32: x, y, z in the LiDAR frame, intensity 0 to 255, ring index.
    """
    sensor = scenario.rig[LIDAR]
    to_global = ego_to_global(scenario.ego_poses([timestamp])[0]) @ sensor.to_ego
    eye = to_global[:3, 3]
    boxes, poses, owners = _solids(scenario, timestamp, eye)
    azimuth = 2 * np.pi * np.arange(AZIMUTHS) / AZIMUTHS
    slopes = np.tan(ELEVATIONS)
    with np.errstate(divide='ignore'):
        ground = np.where(slopes < 0, -eye[2] / slopes, np.inf)
    distance = np.repeat(ground[:, None], AZIMUTHS, axis=1)  # horizontal, rings x azimuths
    owner = np.full(distance.shape, -1)
    if len(boxes):
        ray, solid, enter, leave = _crossings(eye[:2], azimuth, boxes, poses)
        reach = _surface(eye[2], slopes, enter, leave, boxes[solid])
        far_first = np.argsort(-enter, kind='stable')
        for k in _layers(ray[far_first], far_first):
            is_closer = reach[:, k] < distance[:, ray[k]]
            distance[:, ray[k]] = np.where(is_closer, reach[:, k], distance[:, ray[k]])
            owner[:, ray[k]] = np.where(is_closer, owners[solid[k]], owner[:, ray[k]])
    ring, column = np.nonzero(distance < REACH)
    # The last entry is the ground's, whose owner index is -1.
    is_annotated = np.array([actor.name in KINDS for actor in scenario.actors] + [False])
    every = np.where(owner[ring, column] >= 0, SCENERY_EVERY, GROUND_EVERY)
    keep = is_annotated[owner[ring, column]] | ((ring * 3 + column) % every == 0)
    ring, column = ring[keep], column[keep]
    hit = owner[ring, column] >= 0
    along = distance[ring, column] + rng.normal(0, RANGE_SIGMA, len(ring)).clip(-0.02, 0.02)
    along = along + np.where(hit, DEPTH_INTO_SURFACE, 0.0)
    points = np.stack([along * np.cos(azimuth[column]), along * np.sin(azimuth[column]), along * slopes[ring]], axis=1)
    points = points @ to_global[:3, :3]
    intensity = np.where(hit, 18 + (owner[ring, column] * 37) % 60, 8) + rng.integers(0, 6, len(ring))
    return np.concatenate([points, intensity[:, None], ring[:, None]], axis=1).astype(np.float32)


def count_points(points: np.ndarray, scenario: Scenario, timestamp: int, indices: Sequence[int]) -> np.ndarray:
    """Count the points of a scan inside the boxes of actors, as the tables state these boxes.

    Args:
        points: (n, 5) of :func:`scan`.
        scenario: the scene.
        timestamp: of the scan, microseconds.
        indices: of k actors.

    Returns:
        (k,) counts.
    """
    to_global = ego_to_global(scenario.ego_poses([timestamp])[0]) @ scenario.rig[LIDAR].to_ego
    places = points[:, :3].astype(float) @ to_global[:3, :3].T + to_global[:3, 3]
    poses = scenario.actor_poses(timestamp)[list(indices)]
    poses[:, :2] = poses[:, :2].round(POSITION_DECIMALS)
    half = np.array([scenario.actors[index].size for index in indices]).reshape(-1, 3) / 2
    places = places[np.argsort(places[:, 0])]
    radius = np.hypot(half[:, 0], half[:, 1])
    firsts = np.searchsorted(places[:, 0], poses[:, 0] - radius)
    lasts = np.searchsorted(places[:, 0], poses[:, 0] + radius)
    counts = np.zeros(len(indices), dtype=int)
    for k, (x, y, yaw) in enumerate(poses):
        offset = places[firsts[k] : lasts[k]] - (x, y, half[k, 2])
        forward = offset[:, 0] * np.cos(yaw) + offset[:, 1] * np.sin(yaw)
        left = offset[:, 1] * np.cos(yaw) - offset[:, 0] * np.sin(yaw)
        counts[k] = (np.abs(np.stack([forward, left, offset[:, 2]], axis=1)) <= half[k]).all(axis=1).sum()
    return counts


def _solids(scenario: Scenario, timestamp: int, eye: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the solids of the actors within reach of an eye (3,).

    Thin parts are widened within their actor's box, so that a bicycle far away still returns a point.

    Returns:
        Boxes (n, 2, 3) in the frames of their actors, the actors' poses (n, 3), and the actors' indices (n,).
    """
    poses = scenario.actor_poses(timestamp)
    boxes: list[np.ndarray] = []
    owner_indices: list[int] = []
    for index, actor in enumerate(scenario.actors):
        if np.hypot(*(poses[index, :2] - eye[:2])) < REACH + max(actor.size[:2]):
            middle, half = actor.model.boxes.mean(axis=1), np.ptp(actor.model.boxes, axis=1) / 2
            half[:, :2] = np.maximum(half[:, :2], SMALLEST_HALF_WIDTH)
            limit = np.array([actor.size[0] / 2, actor.size[1] / 2, actor.size[2]])
            low = np.maximum(middle - half, (-limit[0], -limit[1], 0.0))
            boxes.append(np.stack([low, np.minimum(middle + half, limit)], axis=1))
            owner_indices += [index] * len(middle)
    owners = np.array(owner_indices, dtype=int)
    return (np.concatenate(boxes) if boxes else np.zeros((0, 2, 3))), poses[owners], owners


def _crossings(
    eye: np.ndarray, azimuth: np.ndarray, boxes: np.ndarray, poses: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Find the pairs of a ray and a box that meet on the ground plan.

    Args:
        eye: (2,) from which the rays start.
        azimuth: (r,) of the rays.
        boxes, poses: of :func:`_solids`.

    Returns:
        Of each pair: the ray's index, the box's index, the horizontal distance of entry, and that of exit.
    """
    cos, sin = np.cos(poses[:, 2]), np.sin(poses[:, 2])
    offset = eye - poses[:, :2]
    start = np.stack([offset[:, 0] * cos + offset[:, 1] * sin, offset[:, 1] * cos - offset[:, 0] * sin])
    relative = azimuth[:, None] - poses[:, 2]
    enter, leave = np.full(relative.shape, 1e-6), np.full(relative.shape, np.inf)
    for axis, step in enumerate((np.cos(relative), np.sin(relative))):
        step = np.where(np.abs(step) < 1e-9, 1e-9, step)
        to_low, to_high = (boxes[:, 0, axis] - start[axis]) / step, (boxes[:, 1, axis] - start[axis]) / step
        enter = np.maximum(enter, np.minimum(to_low, to_high))
        leave = np.minimum(leave, np.maximum(to_low, to_high))
    ray, solid = np.nonzero(enter < leave)
    return ray, solid, enter[ray, solid], leave[ray, solid]


def _surface(
    eye_height: float, slopes: np.ndarray, enter: np.ndarray, leave: np.ndarray, boxes: np.ndarray
) -> np.ndarray:
    """Return the horizontal distances (rings, pairs) at which rays of all slopes hit boxes, infinite for a miss.

    Args:
        eye_height: metres above the ground.
        slopes: (rings,) metres up per metre forward.
        enter, leave: (pairs,) see :func:`_crossings`.
        boxes: (pairs, 2, 3) the box of each pair.
    """
    low, high = boxes[:, 0, 2], boxes[:, 1, 2]
    height = eye_height + slopes[:, None] * enter
    with np.errstate(divide='ignore', invalid='ignore'):
        through_top = (high - eye_height) / slopes[:, None]
        through_bottom = (low - eye_height) / slopes[:, None]
    result = np.where((height >= low) & (height <= high), enter, np.inf)
    result = np.where((height > high) & (through_top > enter) & (through_top < leave), through_top, result)
    return np.where((height < low) & (through_bottom > enter) & (through_bottom < leave), through_bottom, result)


def _layers(ray: np.ndarray, index: np.ndarray) -> list[np.ndarray]:
    """Split pairs into groups in which each ray occurs once, so that a group can be written in one assignment.

    Args:
        ray: (n,) the ray of each pair.
        index: (n,) the number of each pair.

    Returns:
        Numbers of the pairs of each group; the first pair of every ray is in the first group, and so on.
    """
    if not len(ray):
        return []
    order = np.argsort(ray, kind='stable')
    sorted_ray = ray[order]
    rank = np.arange(len(ray)) - np.searchsorted(sorted_ray, sorted_ray)
    by_rank = order[np.argsort(rank, kind='stable')]
    return np.split(index[by_rank], np.cumsum(np.bincount(rank))[:-1])
