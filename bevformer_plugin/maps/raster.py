"""Polygons and lines to cells: a cell counts if its centre lies in the shape.

The rule treats all directions alike, so the raster of a shifted, turned or flipped world is the shifted, turned or
flipped raster. OpenCV's ``fillPoly``, which public code uses, also draws the outline, and the devkit's
``get_map_mask`` crashes with the Shapely version that the devkit pins.
"""

from collections.abc import Sequence

import numpy as np

from bevformer_plugin.geometry import BEVGrid


def fill_polygons(rings: Sequence[np.ndarray], grid: BEVGrid) -> np.ndarray:
    """Find the cells whose centres lie in any of several polygons.

    Args:
        rings: outlines (n, 2) in metres in the grid's frame, without repeating the first point: those of polygons
            counter-clockwise, those of their holes clockwise, see :func:`oriented`.
        grid: its x and y extents count.

    Returns:
        (bev_h, bev_w) bool.
    """
    if not rings:
        return np.zeros((grid.bev_h, grid.bev_w), dtype=bool)
    starts = np.concatenate(rings)
    ends = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    return _winding(_in_cells(starts, grid), _in_cells(ends, grid), grid) > 0


def draw_lines(lines: Sequence[np.ndarray], width: float, grid: BEVGrid) -> np.ndarray:
    """Find the cells whose centres lie within half a width of any of several lines, round at ends and bends.

    A line of the width of a cell gives at least one cell in each row or column that it crosses, so it has no gaps.

    Args:
        lines: (n, 2) points in metres in the grid's frame, n at least 2.
        width: metres.
        grid: its x and y extents count.

    Returns:
        (bev_h, bev_w) bool.
    """
    drawn = np.zeros((grid.bev_h, grid.bev_w), dtype=bool)
    if not lines:
        return drawn
    starts = np.concatenate([line[:-1] for line in lines])
    ends = np.concatenate([line[1:] for line in lines])
    near = _near(starts, ends, width, grid)
    starts, ends = starts[near], ends[near]
    lengths = np.linalg.norm(ends - starts, axis=1)
    starts, ends, lengths = (values[lengths > 0] for values in (starts, ends, lengths))
    to_left = (ends - starts)[:, ::-1] * [-1, 1] * (width / 2 / lengths)[:, None]
    corners = np.stack([starts - to_left, ends - to_left, ends + to_left, starts + to_left], axis=1)  # nx4x2
    corners_after = np.roll(corners, -1, axis=1)
    drawn |= _winding(_in_cells(corners.reshape(-1, 2), grid), _in_cells(corners_after.reshape(-1, 2), grid), grid) > 0
    _draw_discs(np.concatenate(lines), width / 2, grid, drawn)
    return drawn


def oriented(ring: np.ndarray, counter_clockwise: bool) -> np.ndarray:
    """Return a ring (n, 2) in the given sense of rotation, seen with x to the right and y up."""
    x, y = ring.T
    area = np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))
    return ring if (area > 0) == counter_clockwise else ring[::-1]


def _in_cells(points: np.ndarray, grid: BEVGrid) -> np.ndarray:
    """Turn metres (n, 2) into (column, row) in which whole numbers are the centres of cells."""
    low = np.array(grid.point_cloud_range[:2])
    return (points - low) / [grid.cell_x, grid.cell_y] - 0.5


def _winding(starts: np.ndarray, ends: np.ndarray, grid: BEVGrid) -> np.ndarray:
    """Count how often closed outlines go around each cell's centre, counter-clockwise positive.

    Args:
        starts, ends: (n, 2) of their edges, as (column, row).
        grid: the cells.

    Returns:
        (bev_h, bev_w) whole numbers as float64.
    """
    rows, columns = grid.bev_h, grid.bev_w
    upward = ends[:, 1] > starts[:, 1]
    low, high = np.where(upward[:, None], starts, ends), np.where(upward[:, None], ends, starts)
    first = np.clip(np.ceil(low[:, 1]), 0, rows).astype(np.int64)
    after = np.clip(np.ceil(high[:, 1]), 0, rows).astype(np.int64)
    counts = after - first  # rows of centres that an edge crosses
    crossing = counts > 0
    low, high, first, counts, upward = (values[crossing] for values in (low, high, first, counts, upward))
    edge = np.repeat(np.arange(len(counts)), counts)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    slope = (high[:, 0] - low[:, 0]) / (high[:, 1] - low[:, 1])
    column = np.clip(np.ceil(low[edge, 0] + (row - low[edge, 1]) * slope[edge]), 0, columns).astype(np.int64)
    # To the right of an edge that leads down lies the inside of a counter-clockwise outline.
    turns = np.where(upward[edge], -1.0, 1.0)
    changes = np.bincount(row * (columns + 1) + column, turns, rows * (columns + 1))
    return changes.reshape(rows, columns + 1).cumsum(axis=1)[:, :columns].round()


def _near(starts: np.ndarray, ends: np.ndarray, width: float, grid: BEVGrid) -> np.ndarray:
    """Return for each segment whether it may reach into the grid, (n,) bool."""
    low, high = np.array(grid.point_cloud_range[:2]) - width, np.array(grid.point_cloud_range[3:5]) + width
    return ((np.minimum(starts, ends) <= high) & (np.maximum(starts, ends) >= low)).all(axis=1)


def _draw_discs(centres: np.ndarray, radius: float, grid: BEVGrid, drawn: np.ndarray) -> None:
    """Set the cells of ``drawn`` whose centres lie within a radius, in metres, of any of the points (n, 2)."""
    cell = np.array([grid.cell_x, grid.cell_y])
    places = _in_cells(centres, grid)
    reach = np.ceil(radius / cell).astype(int)
    offsets = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing='ij'), axis=-1).reshape(-1, 2)
    cells = (np.round(places)[:, None] + offsets).reshape(-1, 2)
    away = (cells - np.repeat(places, len(offsets), axis=0)) * cell
    inside = (away**2).sum(axis=1) <= radius**2
    inside &= ((cells >= 0) & (cells < [grid.bev_w, grid.bev_h])).all(axis=1)
    column, row = cells[inside].astype(int).T
    drawn[row, column] = True
