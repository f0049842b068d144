"""Boxes drawn into camera images, cut at the image's edges and at a plane in front of the camera."""

import cv2
import numpy as np

from .frames import Boxes
from .palette import PAGE, TRUTH_EDGE, color_bgr

NEAR = 0.1  # metres in front of the camera at which edges are cut
EDGES = np.array([(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7)])
FRONT_BOTTOM, REAR_BOTTOM = [4, 7], [0, 3]  # indices of corners, see Boxes.corners
SUBPIXEL_BITS = 4  # of OpenCV's fixed-point coordinates
FILL_ALPHA = 0.22  # opacity of tinted boxes
FONT, FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.42  # of the ids of tracks
SMALL_BOX = 40  # pixels of height below which thick lines would hide the object


def cut_segments(
    segments: np.ndarray, lidar2img: np.ndarray, size: tuple[int, int], margin: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Project line segments and cut off what lies outside the image.

    Segments are cut before the division by depth, so that no part behind the camera is flipped into the image.

    Args:
        segments: (..., 2, 3) end points, LiDAR metres.
        lidar2img: (3, 4) LiDAR metres to (column * depth, row * depth, depth).
        size: (W, H) of the image in pixels.
        margin: how far beyond the image segments are kept, in image widths and heights.

    Returns:
        End points (..., 2, 2) in pixels (column, row), NaN for segments of which nothing is visible, and bools (...)
        that tell whether a part of the segment is visible.
    """
    points = segments @ lidar2img[:, :3].T + lidar2img[:, 3]  # ...x2x3
    u, v, depth = np.moveaxis(points, -1, 0)  # ...x2 each
    width, height = size
    # Signed distances from the near plane and from the four planes through the camera and the sides of the image; they
    # are 0 or more for a point that the image shows.
    distances = np.stack(
        [
            depth - NEAR,
            u + margin * width * depth,
            (1 + margin) * width * depth - u,
            v + margin * height * depth,
            (1 + margin) * height * depth - v,
        ],
        axis=-2,
    )  # ...x5x2
    start, end = distances[..., 0], distances[..., 1]
    with np.errstate(divide='ignore', invalid='ignore'):
        crossing = start / (start - end)
    enters = np.where((start < 0) & (end >= 0), crossing, 0).max(-1)
    leaves = np.where((start >= 0) & (end < 0), crossing, 1).min(-1)
    visible = (enters < leaves) & ~((start < 0) & (end < 0)).any(-1)
    fractions = np.stack([enters, leaves], axis=-1)[..., None]  # ...x2x1
    cut = points[..., :1, :] + fractions * (points[..., 1:, :] - points[..., :1, :])  # ...x2x3
    cut = np.where(visible[..., None, None], cut, np.nan)
    return cut[..., :2] / cut[..., 2:], visible


def boxes_in_image(boxes: Boxes, lidar2img: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return which boxes (n,) have a part of an edge in the image."""
    return cut_segments(boxes.corners[:, EDGES], lidar2img, size)[1].any(-1)


def draw_camera(
    image: np.ndarray, lidar2img: np.ndarray, truth: Boxes | None, predictions: Boxes | None, size: tuple[int, int]
) -> np.ndarray:
    """Draw boxes into a camera image.

    True boxes are tinted and thinly outlined in white, predicted boxes are outlined in the colour of their class.

    Args:
        image: (H, W, 3) uint8 BGR.
        lidar2img: (3, 4) LiDAR metres to (column * depth, row * depth, depth) of ``image``.
        truth: true boxes, or None.
        predictions: predicted boxes, or None.
        size: (W, H) of the picture to make.

    Returns:
        The picture, (size[1], size[0], 3) uint8 BGR.
    """
    shrinks = size[0] < image.shape[1]
    scale = np.array([size[0] / image.shape[1], size[1] / image.shape[0], 1.0])
    lidar2img = scale[:, None] * lidar2img
    picture = cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    if truth is not None:
        picture = _tint(picture, lidar2img, truth)
        _outline(picture, lidar2img, truth, color=TRUTH_EDGE, thickness=1)
    if predictions is not None:
        _outline(picture, lidar2img, predictions, color=None, thickness=2)
    return picture


def _tint(picture: np.ndarray, lidar2img: np.ndarray, boxes: Boxes) -> np.ndarray:
    """Blend the boxes' silhouettes into the picture, the nearest last."""
    size = (picture.shape[1], picture.shape[0])
    tinted = picture.copy()
    for index in _far_to_near(boxes, lidar2img, size):
        corners = boxes.corners[index]
        # Edges are cut far outside the image, because the hull of edges cut at its sides would miss its corners.
        pixels, visible = cut_segments(corners[EDGES], lidar2img, size, margin=10)
        hull = cv2.convexHull(pixels[visible].reshape(-1, 2).astype(np.float32))
        cv2.fillConvexPoly(tinted, _fixed_point(hull), color_bgr(boxes.colors[index]), cv2.LINE_AA, SUBPIXEL_BITS)
    return cv2.addWeighted(tinted, FILL_ALPHA, picture, 1 - FILL_ALPHA, 0)


def _outline(picture: np.ndarray, lidar2img: np.ndarray, boxes: Boxes, color: str | None, thickness: int) -> None:
    """Draw edges and, on the underside, a tick from the centre to the front, each box in its class's colour or one."""
    size = (picture.shape[1], picture.shape[0])
    for index in _far_to_near(boxes, lidar2img, size):
        corners = boxes.corners[index]
        front, rear = corners[FRONT_BOTTOM].mean(0), corners[REAR_BOTTOM].mean(0)
        tick = np.stack([(front + rear) / 2, front])
        pixels, visible = cut_segments(np.concatenate([corners[EDGES], tick[None]]), lidar2img, size)
        is_small = np.ptp(pixels[visible][..., 1]) < SMALL_BOX
        cv2.polylines(
            picture,
            list(_fixed_point(pixels[visible])),
            False,
            color_bgr(color or boxes.colors[index]),
            1 if is_small else thickness,
            cv2.LINE_AA,
            SUBPIXEL_BITS,
        )
        if boxes.ids is not None:
            top = pixels[visible].reshape(-1, 2)
            _write(picture, boxes.labels[index], top[top[:, 1].argmin()], boxes.colors[index])


def _write(picture: np.ndarray, text: str, place: np.ndarray, color: str) -> None:
    """Write a text above a pixel (column, row), with a dark rim, within the picture."""
    (width, height), _ = cv2.getTextSize(text, FONT, FONT_SCALE, 1)
    column = min(max(round(place[0]) - width // 2, 0), picture.shape[1] - width)
    row = max(round(place[1]) - 3, height + 1)
    for outline, thickness in ((color_bgr(PAGE), 3), (color_bgr(color), 1)):
        cv2.putText(picture, text, (column, row), FONT, FONT_SCALE, outline, thickness, cv2.LINE_AA)


def _far_to_near(boxes: Boxes, lidar2img: np.ndarray, size: tuple[int, int]) -> list[int]:
    """Return the indices of the boxes that the image shows, the farthest first."""
    depth = boxes.values[:, :3] @ lidar2img[2, :3] + lidar2img[2, 3]
    is_shown = boxes_in_image(boxes, lidar2img, size)
    return [int(index) for index in np.argsort(-depth) if is_shown[index]]


def _fixed_point(pixels: np.ndarray) -> np.ndarray:
    """Turn pixels into OpenCV's fixed-point coordinates with ``SUBPIXEL_BITS`` fractional bits."""
    return np.round(pixels * (1 << SUBPIXEL_BITS)).astype(np.int32)
