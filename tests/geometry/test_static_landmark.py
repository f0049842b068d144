"""A static landmark keeps its place in the world: shift and rotation over headings, turns, speeds and grids."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from bevformer_plugin.geometry import BEVGrid
from bevformer_plugin.models import EgoAlignment
from tests.helpers.landmarks import blobs, can_bus_vector, centroids, planar_pose, to_cells, to_global

HEADINGS = range(0, 360, 30)
TURNS = (-25, -6, 0, 3, 15)  # degrees between two frames
SPEEDS = (0.0, 2.5, 9.0)  # metres between two frames
LANDMARKS = ((10.0, 4.0), (-7.0, 9.0), (2.0, -12.0))  # metres ahead and to the left in the previous frame
GRIDS = {
    'square': BEVGrid(50, 50, (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)),
    'rectangle of square cells': BEVGrid(60, 40, (-40.0, -60.0, -5.0, 40.0, 60.0, 3.0)),
    'oblong cells': BEVGrid(32, 64, (-48.0, -48.0, -5.0, 48.0, 48.0, 3.0)),
    'vehicle off the centre': BEVGrid(50, 50, (-40.0, -30.0, -5.0, 60.0, 70.0, 3.0)),
    'oblong cells, vehicle off the centre': BEVGrid(64, 32, (-56.0, -40.0, -5.0, 40.0, 56.0, 3.0)),
}


def drives(headings=HEADINGS, turns=TURNS, speeds=SPEEDS, landmarks=LANDMARKS) -> tuple[Tensor, Tensor, Tensor]:
    """Every combination: (K, 4, 4) poses before and now, and (K, 2) global landmarks."""
    heading, turn, speed, ahead, left = torch.tensor(
        [(h, t, s, *at) for h, t, s, at in itertools.product(headings, turns, speeds, landmarks)], dtype=torch.float64
    ).unbind(-1)
    course = (heading + turn / 2).deg2rad()
    before = planar_pose(600, 1200, heading)
    now = planar_pose(600 + speed * course.cos(), 1200 + speed * course.sin(), heading + turn)
    return before, now, to_global(ahead, left, before)


def seen_and_true(
    alignment: EgoAlignment, grid: BEVGrid, before: Tensor, now: Tensor, landmark: Tensor
) -> tuple[Tensor, Tensor]:
    """Where the aligned previous BEV shows the landmarks and where they are now, (K, 2) cells each.

    The cell at p of the current BEV reads the rotated previous BEV at p + shift.
    """
    poses = zip(can_bus_vector(now), can_bus_vector(before), strict=True)
    motion = torch.stack([alignment.relative(current, previous) for current, previous in poses])
    rotated, shift = alignment.align(blobs(to_cells(landmark, before, grid), grid), motion, grid)
    seen = centroids(rotated, grid) - shift.double() * torch.tensor([grid.bev_w, grid.bev_h])
    return seen, to_cells(landmark, now, grid)


@pytest.mark.parametrize('name', GRIDS)
def test_the_default_keeps_a_landmark_in_its_cell(name):
    seen, true = seen_and_true(EgoAlignment(), GRIDS[name], *drives())
    assert len(true) == len(HEADINGS) * len(TURNS) * len(SPEEDS) * len(LANDMARKS)
    assert (seen - true).norm(dim=-1).max() < 0.05


@pytest.mark.parametrize('name', GRIDS)
def test_nearest_cells_cost_half_a_cell(name):
    seen, true = seen_and_true(EgoAlignment(rotate_interpolation='nearest'), GRIDS[name], *drives())
    assert (seen - true).abs().max() < 0.5


def test_without_alignment_the_landmark_stays_behind():
    seen, true = seen_and_true(EgoAlignment(align_history=False), GRIDS['square'], *drives(speeds=[9.0]))
    assert (seen - true).norm(dim=-1).min() > 1


@pytest.mark.parametrize('turn', [-4, 2, 5])
@pytest.mark.parametrize(('bev_side', 'lever'), [(50, 75), (150, 25), (200, 0)])
def test_the_published_preset_turns_about_a_cell_of_its_largest_grid(bev_side, lever, turn):
    """(100, 100) is ``lever`` cells off the centre in x and y, so a turn throws the landmark off by a known chord."""
    grid = BEVGrid(bev_side, bev_side, (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0))
    seen, true = seen_and_true(EgoAlignment.from_config(dict(preset='official_v1')), grid, *drives(turns=[turn]))
    error = (seen - true).norm(dim=-1)
    chord = 2 * math.sin(math.radians(abs(turn)) / 2) * lever * math.sqrt(2)
    assert (error - chord).abs().max() < 0.7  # nearest neighbour: half a cell in x and y
    assert (error.min() > 1) == (lever > 0 and chord > 1.7)


def test_autocast_moves_no_cell():
    """A product of matrices in bfloat16 would take cells from up to half a cell away."""
    grid = GRIDS['square']
    expected, _ = seen_and_true(EgoAlignment(), grid, *drives())
    with torch.autocast('cpu', dtype=torch.bfloat16):
        seen, _ = seen_and_true(EgoAlignment(), grid, *drives())
    assert torch.equal(seen, expected)
