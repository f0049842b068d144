"""Cells and pillars lie where the conventions say."""

import numpy as np
import pytest
import torch

from bevformer_plugin.geometry import BEVGrid, bev_reference_points, pillar_points

RANGE = (-30.0, -40.0, -5.0, 50.0, 60.0, 3.0)


def test_cells_of_a_grid_that_is_not_square():
    grid = BEVGrid(5, 4, RANGE)
    assert (grid.cell_x, grid.cell_y, grid.num_queries) == (20.0, 20.0, 20)
    reference = bev_reference_points(grid)
    assert reference.shape == (20, 2)
    for row in range(5):
        for column in range(4):
            expected = [(column + 0.5) / 4, (row + 0.5) / 5]
            assert reference[row * 4 + column].tolist() == pytest.approx(expected)


def test_pillars_in_metres():
    grid = BEVGrid(5, 4, RANGE)
    points = pillar_points(grid, 4)
    assert points.shape == (4, 20, 3)
    assert points.dtype == torch.float32
    assert points[0, 0].tolist() == pytest.approx([-20, -30, -4.5])  # rear left
    assert points[0, 3].tolist() == pytest.approx([40, -30, -4.5])  # the column grows with x
    assert points[0, 16].tolist() == pytest.approx([-20, 50, -4.5])  # the row grows with y
    np.testing.assert_allclose(points[:, 7, 2], np.linspace(0.5, 7.5, 4) - 5, atol=1e-6)


@pytest.mark.parametrize(
    ('sizes', 'extent', 'message'),
    [
        ((0, 4), RANGE, 'got 0 x 4'),
        ((5, -1), RANGE, 'got 5 x -1'),
        ((5, 4), (50.0, -40.0, -5.0, -30.0, 60.0, 3.0), 'minima, then maxima'),
        ((5, 4), RANGE[:4], 'six numbers'),
    ],
)
def test_impossible_grids_are_refused(sizes, extent, message):
    with pytest.raises(ValueError, match=message):
        BEVGrid(*sizes, extent)
