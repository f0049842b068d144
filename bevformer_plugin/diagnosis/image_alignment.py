"""Whether cameras look where the calibration says: edges in the LiDAR's depth have to lie on edges in the images.

The comparison needs no annotation and no network: where a thing ends and the background begins, depth jumps and the
picture mostly changes. The edge strength of the pictures at the projected jumps is greatest for the right calibration,
and lower for one that is turned by a degree (an idea of Levinson and Thrun, RSS 2013, for checking a calibration).
"""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from bevformer_plugin.datasets.transforms import load_camera_image
from bevformer_plugin.errors import InputError

from .alignment import Scan
from .page import Line, note, ok, wrong

WIDTH = 400  # pixels to which pictures are made smaller
JUMP = (0.5, 100.0)  # metres between neighbours on a ring, of the points before an edge
REACH = (3.0, 50.0)  # metres from the LiDAR
NEAR_ANGLES = np.arange(-0.75, 0.76, 0.25)  # degrees about the camera's vertical axis, within the error of all parts
FAR_ANGLES = np.concatenate([np.arange(-10, -1.4, 0.5), np.arange(1.5, 10.1, 0.5)])
LEAST_EDGES = 200  # projected jumps with which a direction can be judged at all
DECISIVE_EDGES = 1000  # with fewer, chance lets a turned camera fit better now and then
NOT_BETTER = 0.15  # share of turned cameras that fit as well as the given one, by which it fits by chance
STRONGER = 1.2  # by which factor edges must be stronger for a turned camera to be the right one


def examine_cameras(root: Path, scans: Iterable[Scan]) -> list[Line]:
    """Compare depth jumps with edges in the images of every camera.

    Args:
        root: dataroot.
        scans: keyframes with their points.
    """
    sums: dict[str, np.ndarray] = {}
    for scan in scans:
        edges = depth_edges(scan.points)
        for name, image in scan.entry['images'].items():
            try:
                pixels, _ = load_camera_image(str(root / image['img_path']), image, f'{name} of {scan.entry["token"]}')
            except (InputError, OSError):
                continue  # missing and broken files are reported where files are
            sums[name] = sums.get(name, 0) + _strengths(edges, image, pixels)
    if not sums:
        return [note('cameras', 'no keyframe has LiDAR points and images: not compared')]
    return [_judge(name, *both) for name, both in sums.items()]


def _judge(name: str, strengths: np.ndarray, counts: np.ndarray) -> Line:
    """Say whether a camera looks where its calibration says.

    Args:
        name: of the camera.
        strengths: sums of edge strengths at the angles of ``NEAR_ANGLES``, then ``FAR_ANGLES``.
        counts: of how many projected jumps they are.
    """
    if counts[: len(NEAR_ANGLES)].max() < LEAST_EDGES:
        return note(name, f'{int(counts.max())} depth edges of the LiDAR in its images are too few to judge by')
    means = strengths / np.maximum(counts, 1)
    near, far = means[: len(NEAR_ANGLES)].max(), np.where(counts < LEAST_EDGES, 0, means)[len(NEAR_ANGLES) :]
    found = f'{near:.2f} times the usual edges where the LiDAR sees depth jump ({int(counts[3])} points)'
    better = float((far >= near).mean())
    best = int(far.argmax())
    doubtful = wrong if counts[3] >= DECISIVE_EDGES else note
    if far[best] > STRONGER * near and better < NOT_BETTER:
        return doubtful(
            name,
            f'{found}, and {far[best]:.2f} times if the camera is turned by {FAR_ANGLES[best]:+g} degrees about its '
            'vertical axis: mend its rotation in calibrated_sensor.json',
        )
    if better >= NOT_BETTER:
        return doubtful(
            name,
            f'{found}, as if it looked elsewhere ({better:.0%} of other directions fit as well): mend its rotation, '
            'translation and camera_intrinsic in calibrated_sensor.json, or swap it with another camera',
        )
    return ok(name, f'{found}; {np.median(far):.2f} times for other directions')


def depth_edges(points: np.ndarray) -> np.ndarray:
    """Return the points (m, 3) behind which depth jumps, seen along the LiDAR's rings.

    Args:
        points: (n, 5) with the ring in the last column.
    """
    distance = np.linalg.norm(points[:, :3], axis=1)
    azimuth = np.arctan2(points[:, 1], points[:, 0])
    order = np.lexsort((azimuth, points[:, 4]))
    ring, distance, ordered = points[order, 4], distance[order], points[order, :3]
    jump = np.zeros(len(ordered))
    for step in (1, -1):
        same = np.roll(ring, step) == ring
        jump = np.maximum(jump, np.where(same, np.roll(distance, step) - distance, 0))
    return ordered[(jump > JUMP[0]) & (jump < JUMP[1]) & (distance > REACH[0]) & (distance < REACH[1])]


def _strengths(edges: np.ndarray, image: dict, pixels: np.ndarray) -> np.ndarray:
    """Sum the edge strengths of a picture at projected depth edges, for the camera turned by all angles.

    Args:
        edges: (m, 3) in the LiDAR's frame.
        image: of the entry.
        pixels: (H, W, 3) uint8.

    Returns:
        (2, angles): sums, and how many points are in the picture.
    """
    scale = WIDTH / pixels.shape[1]
    small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    strength = _edge_strength(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY))
    intrinsic = np.diag([scale, scale, 1.0]) @ np.array(image['cam2img'])[:3, :3]
    lidar2cam = np.array(image['lidar2cam'])
    seen = edges @ lidar2cam[:3, :3].T + lidar2cam[:3, 3]
    sums = []
    for angle in np.radians(np.concatenate([NEAR_ANGLES, FAR_ANGLES])):
        cos, sin = np.cos(angle), np.sin(angle)
        turned = np.stack(
            [seen[:, 0] * cos + seen[:, 2] * sin, seen[:, 1], seen[:, 2] * cos - seen[:, 0] * sin], axis=1
        )
        columns, rows, depth = (turned[turned[:, 2] > 1] @ intrinsic.T).T
        columns, rows = np.floor(columns / depth).astype(int), np.floor(rows / depth).astype(int)
        inside = (columns >= 0) & (rows >= 0) & (columns < strength.shape[1]) & (rows < strength.shape[0])
        sums.append((strength[rows[inside], columns[inside]].sum(), inside.sum()))
    return np.array(sums, dtype=np.float64).T


def _edge_strength(grey: np.ndarray) -> np.ndarray:
    """Return how strongly a picture changes from left to right at each pixel, 1 on average."""
    change = np.minimum(np.abs(cv2.Sobel(grey.astype(np.float32), cv2.CV_32F, 1, 0)), 200)
    blurred = cv2.GaussianBlur(change, (0, 0), 1.0)
    return blurred / max(float(blurred.mean()), 1e-6)
