"""What lies on the ground plane and behind everything: the painted street from above, and the sky with a skyline."""

from __future__ import annotations

import functools
from collections.abc import Callable

import cv2
import numpy as np

from bevformer_plugin.synthetic.road import SIDE_STREET_HALF_WIDTH, SIDE_STREET_SIDEWALK, ZEBRA, Road

RESOLUTION = 0.1  # metres of a pixel of the finest texture
LEVELS = 5  # textures, each half as fine as the one before
GRASS, YARD, PAVED, JOINT, ASPHALT, PATCH, BAY, BIKE, WHITE, YELLOW = range(10)
COLOURS = np.array(  # BGR of the labels above
    [
        (62, 104, 84),
        (118, 136, 146),
        (160, 162, 164),
        (126, 128, 130),
        (92, 90, 90),
        (78, 76, 76),
        (106, 104, 102),
        (88, 88, 112),
        (222, 224, 224),
        (70, 190, 225),
    ],
    dtype=np.uint8,
)
PANORAMA_WIDTH, PANORAMA_HEIGHT = 2880, 400  # pixels; the width is one turn
PANORAMA_LOW, PANORAMA_HIGH = np.deg2rad(-2.0), np.deg2rad(48.0)  # elevations of the last and the first row

Fill = Callable[[np.ndarray, int], None]  # paints the outline (n, 2), in global metres, with a label


def label_raster(
    road: Road, origin: tuple[float, float], shape: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """Draw the street seen from above.

    Args:
        road: the street.
        origin: (x, y) in global metres of the lower left corner; column grows with x and row with y.
        shape: (rows, columns) of ``RESOLUTION`` metres.
        rng: source of yards and patches of asphalt.

    Returns:
        uint8 (rows, columns) of the constants ``GRASS`` to ``YELLOW``.
    """
    raster = np.full(shape, GRASS, dtype=np.uint8)

    def fill(outline: np.ndarray, label: int) -> None:
        points = np.round((outline - origin) / RESOLUTION - 0.5).astype(np.int32)
        cv2.fillPoly(raster, [points], (label,))

    section, first, last = road.section, road.arc[0], road.arc[-1]
    for side in (-1, 1):
        arc = first
        while arc < last:
            length = rng.uniform(12, 30)
            if rng.random() < 0.7:
                fill(road.strip(arc, arc + length, side * section.sidewalk_edge, side * section.yard_edge), YARD)
            arc += length
    for street in road.side_streets:
        fill(side_street(road, street, SIDE_STREET_HALF_WIDTH + SIDE_STREET_SIDEWALK), PAVED)
    fill(road.strip(first, last, -section.sidewalk_edge, section.sidewalk_edge), PAVED)
    for arc in np.arange(first, last, 2.0):
        for side in (-1, 1):
            fill(road.strip(arc, arc + 0.15, side * section.kerb, side * section.sidewalk_edge), JOINT)
    for street in road.side_streets:
        fill(side_street(road, street, SIDE_STREET_HALF_WIDTH), ASPHALT)
    fill(road.strip(first, last, -section.kerb, section.kerb), ASPHALT)
    for side in (-1, 1):
        fill(road.strip(first, last, side * section.bike_edge, side * section.kerb), BAY)
        fill(road.strip(first, last, side * section.lane_edge, side * section.bike_edge), BIKE)
    for _ in range(int((last - first) / 9)):
        arc, offset = rng.uniform(first, last), rng.uniform(-section.lane_edge, section.lane_edge - 1)
        fill(road.strip(arc, arc + rng.uniform(1, 5), offset, offset + rng.uniform(0.4, 1.2)), PATCH)
    _fill_markings(road, fill)
    return raster


def side_street(road: Road, street: float, half_width: float) -> np.ndarray:
    """Return the outline (4, 2) of the street that crosses at arc length ``street``."""
    x, y, heading = road.poses(street, 0.0)
    along, across = np.array([-np.sin(heading), np.cos(heading)]), np.array([np.cos(heading), np.sin(heading)])
    centre = np.array([x, y])
    corners = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    return np.array([centre + 130 * a * along + half_width * b * across for a, b in corners])


def _fill_markings(road: Road, fill: Fill) -> None:
    """Paint the lines between and beside the lanes, those of parking lots, and zebra crossings."""
    section, first, last = road.section, road.arc[0], road.arc[-1]
    crossings = sorted(road.side_streets)
    half = SIDE_STREET_HALF_WIDTH
    starts = [first, *[street + half for street in crossings]]
    ends = [*[street - half for street in crossings], last]
    for begin, end in zip(starts, ends, strict=True):
        for offset in (-0.16, 0.16):
            fill(road.strip(begin, end, offset - 0.06, offset + 0.06), YELLOW)
        for side in (-1, 1):
            edge = side * section.lane_edge
            fill(road.strip(begin, end, edge - 0.07, edge + 0.07), WHITE)
            edge = side * section.bike_edge
            fill(road.strip(begin, end, edge - 0.05, edge + 0.05), WHITE)
            for arc in np.arange(begin + 4, end - 4, 7.0):
                fill(road.strip(arc, arc + 0.12, side * section.bike_edge, side * section.kerb), WHITE)
    for lane in range(1, section.lanes):
        for arc in np.arange(first, last, 8.0):
            if not road.near_side_street(arc + 1.5, 3.0):
                for side in (-1, 1):
                    offset = side * lane * section.lane_edge / section.lanes
                    fill(road.strip(arc, arc + 3.0, offset - 0.07, offset + 0.07), WHITE)
    for street in crossings:
        for sign in (-1, 1):
            near = street + sign * (half + ZEBRA.gap)
            far = near + sign * ZEBRA.length
            begin, end = min(near, far), max(near, far)
            for offset in np.arange(-section.kerb + ZEBRA.inset, section.kerb - ZEBRA.inset, 1.0):
                fill(road.strip(begin, end, offset, offset + 0.5), WHITE)


@functools.lru_cache(maxsize=4)
def _noise_tile(seed: int) -> np.ndarray:
    """Return uint8 noise (1024, 1024) around 128 with structure from 0.1 m to 10 m, whose seams hardly show."""
    rng = np.random.default_rng(seed)
    tile = np.zeros((1024, 1024), np.float32)
    for cells, strength in ((1024, 7.0), (512, 7.0), (256, 6.0), (64, 5.0), (16, 5.0)):
        grid = rng.standard_normal((cells, cells)).astype(np.float32)
        tile += strength * (grid if cells == 1024 else cv2.resize(grid, (1024, 1024), interpolation=cv2.INTER_LINEAR))
    return np.clip(128 + tile, 0, 255).astype(np.uint8)


def texture_pyramid(labels: np.ndarray, seed: int) -> list[np.ndarray]:
    """Turn a label raster into coloured, rough ground: uint8 BGR images, each half as fine as the one before."""
    rows, columns = labels.shape
    tile = _noise_tile(seed)
    noise = np.tile(tile, (rows // 1024 + 1, columns // 1024 + 1))[:rows, :columns]
    levels = [cv2.multiply(COLOURS[labels], cv2.merge([noise, noise, noise]), scale=1 / 128)]
    while len(levels) < LEVELS:
        previous = levels[-1]
        size = (previous.shape[1] // 2, previous.shape[0] // 2)
        levels.append(cv2.resize(previous[: 2 * size[1], : 2 * size[0]], size, interpolation=cv2.INTER_AREA))
    return levels


def panorama(sky_bottom: np.ndarray, sky_top: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw sky and skyline all around, far enough away not to shift with the ego vehicle.

    Args:
        sky_bottom, sky_top: (3,) BGR colours, 0 to 255.
        rng: source of clouds and houses.

    Returns:
        uint8 (PANORAMA_HEIGHT, 2 * PANORAMA_WIDTH, 3): two turns side by side, azimuth growing with the column and
        elevation from ``PANORAMA_HIGH`` (row 0) down to ``PANORAMA_LOW``.
    """
    elevation = np.linspace(PANORAMA_HIGH, PANORAMA_LOW, PANORAMA_HEIGHT)
    mix = np.clip(elevation / PANORAMA_HIGH, 0, 1)[:, None, None] ** 0.6
    image = np.broadcast_to((1 - mix) * sky_bottom + mix * sky_top, (PANORAMA_HEIGHT, PANORAMA_WIDTH, 3)).astype(
        np.float32
    )
    puffs = rng.standard_normal((10, 48)).astype(np.float32)
    wide = cv2.resize(np.tile(puffs, (1, 3)), (3 * PANORAMA_WIDTH, PANORAMA_HEIGHT), interpolation=cv2.INTER_CUBIC)
    clouds = wide[:, PANORAMA_WIDTH : 2 * PANORAMA_WIDTH]  # the middle of three turns joins up with itself
    image = image + 9 * np.clip(clouds, 0, 2)[..., None]
    azimuth = 0
    while azimuth < PANORAMA_WIDTH:
        width = int(rng.integers(20, 110))
        height = np.deg2rad(rng.uniform(0.8, 3.4))
        top = int(np.searchsorted(-elevation, -height))
        shade = rng.uniform(0.62, 0.85)
        image[top:, azimuth : azimuth + width] = shade * sky_bottom * (0.95, 0.97, 1.0)
        azimuth += width
    image = np.clip(image, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.concatenate([image, image], axis=1))
