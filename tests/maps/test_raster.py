"""From shapes to cells."""

import itertools

import numpy as np
import pytest

from bevformer_plugin.geometry import BEVGrid
from bevformer_plugin.maps import draw_lines, fill_polygons, oriented

GRID = BEVGrid(4, 6, (0.0, 0.0, -1.0, 6.0, 4.0, 1.0))  # cells of a metre


def box(x0, y0, x1, y1):
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], dtype=float)


def cells(text):
    """Rows of a raster from the top (far) to the bottom (near), as one sees them."""
    return np.array([[character == '#' for character in line] for line in reversed(text.split())])


def test_a_cell_counts_if_its_centre_lies_in_the_shape():
    filled = fill_polygons([box(0.6, 0.4, 3.4, 2.6)], GRID)
    np.testing.assert_array_equal(filled, cells('...... .##... .##... .##...'))


def test_holes_are_left_out_and_filled_by_what_lies_in_them():
    outline, hole = box(0, 0, 6, 4), box(1, 1, 5, 3)[::-1]
    np.testing.assert_array_equal(fill_polygons([outline, hole], GRID), cells('###### #....# #....# ######'))
    island = box(2, 1, 3, 3)
    np.testing.assert_array_equal(fill_polygons([island, outline, hole], GRID), cells('###### #.#..# #.#..# ######'))


def test_shapes_that_overlap_or_leave_the_grid():
    rings = [box(-9, -9, 2, 9), box(1, 1, 3, 2), box(4, 3, 40, 40), box(100, 100, 110, 110)]
    np.testing.assert_array_equal(fill_polygons(rings, GRID), cells('##..## ##.... ###... ##....'))


def test_nothing_gives_an_empty_raster():
    assert not fill_polygons([], GRID).any() and not draw_lines([], 1.0, GRID).any()


def test_lines_have_their_width_and_round_ends():
    line = np.array([[1.5, 1.6], [3.5, 1.6]])
    np.testing.assert_array_equal(draw_lines([line], 1.0, GRID), cells('...... ...... .###.. ......'))
    np.testing.assert_array_equal(draw_lines([line], 2.0, GRID), cells('...... .###.. .###.. ......'))
    np.testing.assert_array_equal(
        draw_lines([line[:1].repeat(2, axis=0)], 1.0, GRID), cells('...... ...... .#.... ......')
    )


@pytest.mark.parametrize('angle', np.linspace(0.05, np.pi - 0.03, 17))
def test_a_line_as_wide_as_a_cell_has_no_gaps(angle):
    grid = BEVGrid(40, 40, (-20.0, -20.0, -1.0, 20.0, 20.0, 1.0))
    direction = np.array([np.cos(angle), np.sin(angle)])
    drawn = draw_lines([np.array([[0.2, 0.1] - 60 * direction, [0.2, 0.1] + 60 * direction])], 1.0, grid)
    across = drawn.any(axis=1) if abs(direction[1]) > abs(direction[0]) else drawn.any(axis=0)
    assert across.all()
    # As many cells as square metres. At slopes such as 1 the count depends on where the line lies.
    length = 40 / np.abs(direction).max()
    assert drawn.sum() == pytest.approx(length, rel=0.2)


def test_what_is_within_reach_is_exact():
    """Against the distance of each centre to each segment, for random lines that bend."""
    rng = np.random.default_rng(0)
    grid = BEVGrid(30, 20, (-10.0, -15.0, -1.0, 10.0, 15.0, 1.0))
    y, x = np.meshgrid(np.arange(30) - 14.5, np.arange(20) - 9.5, indexing='ij')
    centres = np.stack([x, y], axis=-1)
    lines = [rng.uniform(-18, 18, (count, 2)) for count in (2, 3, 7)]
    expected = np.zeros((30, 20), dtype=bool)
    for line in lines:
        for start, end in itertools.pairwise(line):
            along = np.clip(((centres - start) @ (end - start)) / ((end - start) @ (end - start)), 0, 1)
            expected |= np.linalg.norm(centres - start - along[..., None] * (end - start), axis=-1) <= 0.8
    np.testing.assert_array_equal(draw_lines(lines, 1.6, grid), expected)


def test_the_sense_of_rotation_is_made():
    ring = box(0, 0, 1, 1)
    for given in (ring, ring[::-1]):
        np.testing.assert_array_equal(oriented(given, counter_clockwise=True), ring)
        np.testing.assert_array_equal(oriented(given, counter_clockwise=False), ring[::-1])
