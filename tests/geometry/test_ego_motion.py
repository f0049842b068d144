"""Ego motion: relative poses, shift and rotation of the previous BEV."""

import math

import pytest
import torch

from bevformer_plugin.geometry import BEVGrid, bev_shift, relative_can_bus, rotate_bev
from tests.helpers.landmarks import blobs, can_bus_vector, centroids, planar_pose, to_cells, to_global

GRID = BEVGrid(48, 40, (-40.0, -48.0, -5.0, 40.0, 48.0, 3.0))  # cells of 2 m
LANDMARK = torch.tensor([612.0, 1205.0])  # global (x, y)


def landmark_error(
    before: torch.Tensor,
    now: torch.Tensor,
    landmark: torch.Tensor,
    interpolation: str,
    center: tuple[float, float] | None = None,
    wrap_heading: bool = True,
) -> float:
    """Cells between a static landmark and the place where the aligned previous BEV shows it.

    The cell at p of the current BEV reads the rotated previous BEV at p + shift.
    """
    motion = relative_can_bus(can_bus_vector(now), can_bus_vector(before), wrap_heading)[None]
    map_before = blobs(to_cells(landmark, before, GRID)[None], GRID)
    rotated = rotate_bev(map_before, motion[:, 17], GRID, center, interpolation)
    seen = centroids(rotated, GRID) - bev_shift(motion, GRID).double() * torch.tensor([GRID.bev_w, GRID.bev_h])
    return (seen[0] - to_cells(landmark, now, GRID)).norm().item()


@pytest.mark.parametrize('heading', [0, 37, 90, 151, 225, 300, 359])
@pytest.mark.parametrize('turn', [-25, -4, 0, 3, 18])
@pytest.mark.parametrize(('interpolation', 'cells'), [('nearest', 0.5), ('bilinear', 0.02)])
def test_static_landmark_stays_in_its_cell(heading, turn, interpolation, cells):
    before = planar_pose(600, 1200, heading)
    angle = math.radians(heading + turn / 2)
    now = planar_pose(600 + 6 * math.cos(angle), 1200 + 6 * math.sin(angle), heading + turn)
    for ahead, left in [(12, 5), (-9, 11), (3, -14)]:
        assert landmark_error(before, now, to_global(ahead, left, before), interpolation) < cells


def test_turning_about_a_fixed_cell_loses_the_landmark():
    """What the published code's centre (100, 100) does on a grid that is not 200 x 200."""
    poses = planar_pose(600, 1200, 20), planar_pose(606, 1201, 26)
    assert landmark_error(*poses, LANDMARK, 'nearest', center=(100.0, 100.0)) > 5
    assert landmark_error(*poses, LANDMARK, 'nearest') < 0.5


def test_crossing_north():
    """Wrapped or not, the map turns alike; what the network is told differs."""
    before, now = planar_pose(600, 1200, 1), planar_pose(606, 1200, 359)
    absolute = can_bus_vector(now), can_bus_vector(before)
    assert relative_can_bus(*absolute)[17].item() == pytest.approx(-2)
    assert relative_can_bus(*absolute, wrap_heading=False)[17].item() == pytest.approx(358)
    for wrap_heading in (True, False):
        assert landmark_error(before, now, LANDMARK, 'bilinear', wrap_heading=wrap_heading) < 0.02


def test_shift_by_hand():
    """Driving straight on moves the reference forward (row), sliding right moves it right (column)."""
    now, before, beside = (can_bus_vector(planar_pose(x, y, 90)) for x, y in ((3, 4), (3, 0), (5, 0)))
    assert bev_shift(relative_can_bus(now, before)[None], GRID)[0].tolist() == pytest.approx([0, 4 / 96], abs=1e-7)
    right = relative_can_bus(beside, before)
    assert bev_shift(right[None], GRID)[0].tolist() == pytest.approx([2 / 80, 0], abs=1e-7)
    parked = relative_can_bus(now, now)
    assert bev_shift(torch.stack([right, parked]), GRID)[1].tolist() == [0, 0]


def test_relative_pose_leaves_its_arguments_alone():
    now, before = torch.arange(18.0, dtype=torch.float64), torch.ones(18, dtype=torch.float64)
    relative = relative_can_bus(now, before)
    assert relative[:3].tolist() == [-1, 0, 1]
    assert relative[3:17].tolist() == list(range(3, 17))
    assert relative[17].item() == 16
    assert now.tolist() == list(range(18))
    first = relative_can_bus(now, None)
    assert first[:3].tolist() == [0, 0, 0]
    assert first[16].item() == 16
    assert first[17].item() == 0


def test_quarter_turn_moves_whole_cells():
    """A left turn by 90 degrees brings what was ahead to the right."""
    grid = BEVGrid(7, 7, (-7.0, -7.0, -5.0, 7.0, 7.0, 3.0))
    bev = torch.randn(2, 49, 3)
    rotated = rotate_bev(bev, torch.tensor([90.0, 0.0]), grid, None, 'nearest')
    maps = bev.unflatten(1, (7, 7))
    torch.testing.assert_close(rotated[0].unflatten(0, (7, 7)), torch.rot90(maps[0], 1, (0, 1)))
    assert torch.equal(rotated[1], bev[1])
    ahead = torch.zeros(7, 7)
    ahead[6, 3] = 1
    right = rotate_bev(ahead.view(1, 49, 1), torch.tensor([90.0]), grid, None, 'nearest').view(7, 7)
    assert right[3, 6] == 1


def test_each_sample_turns_by_its_own_angle():
    bev = torch.randn(3, GRID.num_queries, 4)
    degrees = torch.tensor([5.0, -12.0, 0.0])
    for interpolation in ('nearest', 'bilinear'):
        together = rotate_bev(bev, degrees, GRID, (5.0, 6.0), interpolation)
        for sample in range(3):
            alone = rotate_bev(bev[sample : sample + 1], degrees[sample : sample + 1], GRID, (5.0, 6.0), interpolation)
            torch.testing.assert_close(together[sample : sample + 1], alone)


def test_map_of_another_grid_is_refused():
    with pytest.raises(ValueError, match='100 cells does not fill a 48 x 40 grid'):
        rotate_bev(torch.zeros(1, 100, 4), torch.zeros(1), GRID)


@pytest.mark.parametrize('center', [None, (5.0, 6.0), (100.0, 100.0)])
def test_nearest_rotation_against_a_loop(center):
    """Every output cell takes the input cell that turns onto it; positions are counted from pixel corners."""
    grid = BEVGrid(12, 10, (-50.0, -60.0, -5.0, 50.0, 60.0, 3.0))
    bev = torch.randn(1, grid.num_queries, 2)
    x_center, y_center = center or (5.0, 6.0)
    for degrees in (7.5, -31.0):
        rotated = rotate_bev(bev, torch.tensor([degrees]), grid, center, 'nearest').view(12, 10, 2)
        sin, cos = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
        for row in range(12):
            for column in range(10):
                x, y = column + 0.5 - x_center, row + 0.5 - y_center
                source_column = math.floor(cos * x - sin * y + x_center)
                source_row = math.floor(sin * x + cos * y + y_center)
                inside = 0 <= source_row < 12 and 0 <= source_column < 10
                expected = bev[0, source_row * 10 + source_column] if inside else torch.zeros(2)
                assert torch.equal(rotated[row, column], expected)
