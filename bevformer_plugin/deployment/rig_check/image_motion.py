"""Whether the images of a camera moved as the poses of its vehicle say."""

from collections.abc import Sequence

import cv2
import numpy as np

from bevformer_plugin.deployment.camera import Camera

MAX_WIDTH = 800  # pixels that images are shrunk to: features of roads are large enough
FEATURES, FAST_THRESHOLD = 3000, 8  # of an image, and the contrast of a corner, low enough for dull days
RATIO = 0.75  # of the distances of the best and the second match (Lowe, 2004)
NEAREST = 1.5  # metres from a camera to the nearest thing that it shows
STEPS = 48  # inverse depths at which a feature is looked for
TOLERANCE = 2.5  # pixels between a feature and where a motion puts it
MIRROR = np.diag([1.0, -1.0, 1.0, 1.0])


def agreeing_features(
    images: tuple[np.ndarray, np.ndarray], candidates: Sequence[tuple[Camera, np.ndarray]]
) -> np.ndarray:
    """Count the features of two images that moved as one candidate says and as no other does.

    A feature may be at any depth, so each candidate lets it be on a line in the second image.

    Args:
        images: two of (H, W, 3) uint8 BGR of one camera.
        candidates: calibrations that the camera may have, for images of that size, each with the motion of the
            vehicle, a (4, 4) transform, metres, from its frame at the first image to that at the second.

    Returns:
        The number of features for each of the candidates.
    """
    height, width = images[0].shape[:2]
    scale = min(1.0, MAX_WIDTH / width)
    size = round(width * scale), round(height * scale)
    first, second = matched_features([cv2.resize(image, size, None, 0, 0, cv2.INTER_AREA) for image in images])
    if not len(first):
        return np.zeros(len(candidates), dtype=int)
    errors = np.stack([_errors(camera.resized(size), first, second, motion) for camera, motion in candidates])
    best, others = np.sort(errors, axis=0)[:2]
    tells = (best < TOLERANCE) & (others > best + TOLERANCE)
    return np.bincount(errors.argmin(0)[tells], minlength=len(candidates))


def matched_features(images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Find features in two BGR images; returns (n, 2) pixels in the first and in the second."""
    detector = cv2.ORB.create(nfeatures=FEATURES, fastThreshold=FAST_THRESHOLD)
    grays = [cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) for image in images]
    (points, descriptors), (others, other_descriptors) = (
        detector.compute(gray, detector.detect(gray)) for gray in grays
    )
    if descriptors is None or other_descriptors is None or min(len(points), len(others)) < 2:
        return np.empty((0, 2)), np.empty((0, 2))
    matches = cv2.BFMatcher(cv2.NORM_HAMMING).knnMatch(descriptors, other_descriptors, k=2)
    chosen = [best for best, second in matches if best.distance < RATIO * second.distance]
    return (
        np.array([points[match.queryIdx].pt for match in chosen]).reshape(-1, 2),
        np.array([others[match.trainIdx].pt for match in chosen]).reshape(-1, 2),
    )


def _errors(camera: Camera, first: np.ndarray, second: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """Return how far, in pixels, features (n, 2) of a second image are from where a motion puts those of the first."""
    rays = np.column_stack([first, np.ones(len(first))]) @ np.linalg.inv(camera.intrinsics).T
    between = np.linalg.inv(camera.camera2ego) @ motion @ camera.camera2ego
    inverse_depths = np.linspace(0, 1 / NEAREST, STEPS)[:, None, None]
    points = (rays @ between[:3, :3].T + inverse_depths * between[:3, 3]) @ camera.intrinsics.T  # STEPSxnx3
    depths = points[..., 2:]
    with np.errstate(divide='ignore', invalid='ignore'):
        line = np.where(depths > 1e-3, points[..., :2] / depths, np.inf)
    start, end = line[:-1], line[1:]
    with np.errstate(invalid='ignore', divide='ignore'):
        along = end - start
        share = ((second - start) * along).sum(-1, keepdims=True) / np.maximum((along**2).sum(-1, keepdims=True), 1e-9)
        distances = np.linalg.norm(start + np.clip(share, 0, 1) * along - second, axis=-1)
    return np.nan_to_num(distances, nan=np.inf).min(0)


def mirrored_motion(motion: np.ndarray) -> np.ndarray:
    """Exchange left and right in a motion (4, 4): the vehicle turns the other way."""
    return MIRROR @ motion @ MIRROR
