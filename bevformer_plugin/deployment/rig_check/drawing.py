"""What a calibration says, drawn into the images: the ground, the horizon and cubes of one metre."""

from collections.abc import Mapping

import cv2
import numpy as np

from bevformer_plugin.deployment.camera import Camera
from bevformer_plugin.deployment.rig import Rig
from bevformer_plugin.errors import InputError
from bevformer_plugin.visualization.camera_overlay import EDGES, cut_segments

from .check import read_images

GRID_SPACING, GRID_REACH = 5.0, 30.0  # metres between lines, and from the vehicle to the outermost
HORIZON_DISTANCE = 1e5  # metres, at which the ground is 0.01 pixels from its horizon
HORIZON_PIECES = 72
# Cubes stand on circles about the vehicle: metres, and how many, so that every camera shows some.
CUBE_CIRCLES = ((6.0, 12), (12.0, 24), (24.0, 48))
GROUND, HORIZON, CUBE = (190, 190, 60), (0, 255, 255), (80, 170, 255)  # BGR
AHEAD, LEFT = (60, 60, 255), (80, 220, 80)
FRACTION_BITS = 4  # of OpenCV's fixed-point coordinates


def draw_rig(rig: Rig, images: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Draw a grid of 5 m on the ground, the horizon and one-metre cubes into the images of a frame.

    With a calibration that is right, the grid lies on the road, the yellow horizon where the road's edges meet, cubes
    (6, 12 and 24 m around the vehicle's origin) reach up to a walker's hip, and neighbouring images show the same cube
    at the same place. The red line leads ahead from the vehicle's origin, the green one to its left.

    Args:
        rig: the calibration; it need not be right.
        images: (H, W, 3) uint8 BGR by camera, of the sizes of the rig.

    Returns:
        A picture of the size of the image for every camera that has one.

    Raises:
        InputError: if an image is of another type, size or of an unknown camera, or a camera2ego has no inverse.
    """
    if not isinstance(rig, Rig):
        raise InputError(f'rig is a Rig of cameras, got {type(rig).__name__}: Rig.from_file reads one')
    [frame] = read_images(images, rig) if isinstance(images, Mapping) else [None]
    if frame is None:
        raise InputError(f'images are a mapping of camera names to arrays of one frame, got {type(images).__name__}')
    for name, image in frame.items():
        rig.require_image(name, image)
    return {name: _draw_calibration(rig.cameras[name], name, image) for name, image in frame.items()}


def _draw_calibration(camera: Camera, name: str, image: np.ndarray) -> np.ndarray:
    """Draw ground, horizon and cubes into the image of one camera, see :func:`draw_rig`.

    Raises:
        InputError: if camera2ego has no inverse.
    """
    if abs(np.linalg.det(camera.camera2ego)) < 1e-9:
        raise InputError(f'camera2ego of {name} has no inverse, so nothing can be drawn: check_rig says what is wrong')
    picture = image.copy()
    width = camera.size[0]
    thin = max(1, round(width / 800))
    _draw(picture, camera, grid_segments(), GROUND, thin)
    _draw(picture, camera, np.array([[[0.0, 0, 0], [GRID_REACH, 0, 0]]]), AHEAD, 2 * thin)
    _draw(picture, camera, np.array([[[0.0, 0, 0], [0, GRID_REACH, 0]]]), LEFT, 2 * thin)
    for circle in cube_segments():
        _draw(picture, camera, circle, CUBE, thin)
    _draw(picture, camera, horizon_segments(camera.camera2ego[:3, 3]), HORIZON, thin)
    scale = width / 1600
    place = (round(24 * scale), round(48 * scale))
    cv2.putText(picture, name, place, cv2.FONT_HERSHEY_SIMPLEX, 1.4 * scale, HORIZON, 2 * thin, cv2.LINE_AA)
    return picture


def grid_segments() -> np.ndarray:
    """Return the lines (n, 2, 3) of the grid on the ground, metres in the vehicle's frame."""
    places = np.arange(-GRID_REACH, GRID_REACH + GRID_SPACING / 2, GRID_SPACING)
    along = [[[place, -GRID_REACH, 0.0], [place, GRID_REACH, 0.0]] for place in places]
    across = [[[-GRID_REACH, place, 0.0], [GRID_REACH, place, 0.0]] for place in places]
    return np.array(along + across)


def horizon_segments(eye: np.ndarray) -> np.ndarray:
    """Return pieces (n, 2, 3) of the circle that a level glance from a place (3,) sees as the horizon."""
    angles = np.linspace(0, 2 * np.pi, HORIZON_PIECES + 1)
    circle = eye + HORIZON_DISTANCE * np.stack([np.cos(angles), np.sin(angles), np.zeros_like(angles)], axis=-1)
    return np.stack([circle[:-1], circle[1:]], axis=1)


def cube_segments() -> list[np.ndarray]:
    """Return the edges (cubes * 12, 2, 3) of the one-metre cubes of each circle, metres in the vehicle's frame."""
    square = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    corners = np.concatenate([np.column_stack([square, np.full(4, height)]) for height in (0.0, 1.0)])
    circles = []
    for radius, number in CUBE_CIRCLES:
        angles = np.arange(number) * 2 * np.pi / number
        middles = radius * np.stack([np.cos(angles), np.sin(angles), np.zeros(number)], axis=-1)
        circles.append((middles[:, None] + corners)[:, EDGES].reshape(-1, 2, 3))
    return circles


def _draw(picture: np.ndarray, camera: Camera, segments: np.ndarray, color: tuple[int, int, int], width: int) -> None:
    """Draw segments (n, 2, 3) of the vehicle's frame into a picture."""
    pixels, visible = cut_segments(segments, camera.ego2img[:3], camera.size)
    lines = list(np.round(pixels[visible] * (1 << FRACTION_BITS)).astype(np.int32))
    cv2.polylines(picture, lines, False, color, width, cv2.LINE_AA, FRACTION_BITS)
