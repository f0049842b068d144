"""Whether cameras look where the calibration says: edges in the LiDAR's depth have to lie on edges in the images.

The comparison needs no annotation and no network: where a thing ends and the background begins, depth jumps and the
picture mostly changes. The edge strength of the pictures at the projected jumps is greatest for the right calibration,
and lower for one that is turned by a degree (an idea of Levinson and Thrun, RSS 2013, for checking a calibration).
"""

from collections.abc import Iterable
from dataclasses import dataclass
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
LEAST_EDGES = 200  # projected jumps; from fewer no direction can be judged
DECISIVE_EDGES = 1000  # projected jumps; with fewer, a turned camera sometimes fits better by chance
NOT_BETTER = 0.15  # share of turned cameras that fit as well; with more, the given one fits by chance
STRONGER = 1.2  # factor by which a turned camera must fit better to be taken for the right one
DISTINCT = 1.1  # factor by which the best angle must fit better than all but its neighbours


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
    views = [View(name, *both) for name, both in sums.items()]
    judged = [view for view in views if view.edges >= LEAST_EDGES]
    many = 2 * sum(view.is_doubtful for view in judged) >= max(len(judged), 2)
    return [_line(view, many) for view in views]


@dataclass(frozen=True)
class View:
    """How well depth edges meet edges in the images of a camera, as it looks and turned by other angles.

    Attributes:
        name: of the camera.
        strengths: (angles,) sums of edge strengths at the angles of ``NEAR_ANGLES``, then ``FAR_ANGLES``.
        counts: (angles,) of how many projected jumps they are.
    """

    name: str
    strengths: np.ndarray
    counts: np.ndarray

    @property
    def edges(self) -> int:
        """The number of depth edges in the images."""
        return int(self.counts[len(NEAR_ANGLES) // 2])

    @property
    def near(self) -> float:
        """The strength as the camera looks, give or take less than a degree."""
        return float((self.strengths / np.maximum(self.counts, 1))[: len(NEAR_ANGLES)].max())

    @property
    def far(self) -> np.ndarray:
        """The strengths at ``FAR_ANGLES``; 0 where too few edges are seen."""
        means = np.where(self.counts < LEAST_EDGES, 0, self.strengths / np.maximum(self.counts, 1))
        return means[len(NEAR_ANGLES) :]

    @property
    def is_doubtful(self) -> bool:
        """Whether other directions fit as well or clearly better."""
        return float((self.far >= self.near).mean()) >= NOT_BETTER or float(self.far.max()) > STRONGER * self.near

    @property
    def turn(self) -> float | None:
        """The angle in degrees that fits far better than those around it, None if there is none."""
        best = int(self.far.argmax())
        others = self.far[np.abs(FAR_ANGLES - FAR_ANGLES[best]) > 1]
        return float(FAR_ANGLES[best]) if self.far[best] > DISTINCT * max(others.max(), self.near) else None


def _line(view: View, many: bool) -> Line:
    """Say whether a camera looks where its calibration says.

    Args:
        view: what was found of the camera.
        many: half of all cameras are doubtful, so that this is no chance.
    """
    if view.edges < LEAST_EDGES:
        return note(view.name, f'{view.edges} depth edges of the LiDAR in its images are too few to judge by')
    found = f'{view.near:.2f} times the usual edges where the LiDAR sees depth jump ({view.edges} points)'
    if not view.is_doubtful:
        return ok(view.name, f'{found}; {np.median(view.far):.2f} times for other directions')
    verdict = wrong if many or view.edges >= DECISIVE_EDGES else note
    if view.turn is not None:
        return verdict(
            view.name,
            f'{found}, and {view.far.max():.2f} times if the camera is turned by {view.turn:+g} degrees about its '
            'vertical axis: mend its rotation in calibrated_sensor.json',
        )
    return verdict(
        view.name,
        f'{found}, as if it looked elsewhere, since other directions fit as well ({view.far.max():.2f} times): mend '
        'its rotation, translation and camera_intrinsic in calibrated_sensor.json, or swap it with another camera',
    )


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
