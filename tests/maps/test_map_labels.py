"""The true map of a keyframe, and what happens to it when the world is shifted, turned or flipped."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from bevformer_plugin.maps import (
    IGNORED,
    PROTOCOLS,
    Footprints,
    between_planes,
    find_protocol,
    from_global,
    map_labels,
    plane_to_global,
    read_expansion,
)
from bevformer_plugin.maps.expansion import AREAS, LINES
from bevformer_plugin.maps.protocols import VEHICLES
from tests.helpers.map_files import ExpansionFile

LOCATION = 'boston-seaport'


def pose(x, y, z, *degrees):
    """A motion (4, 4) that turns by yaw, pitch and roll and then moves."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler('zyx', degrees, degrees=True).as_matrix()
    matrix[:3, 3] = x, y, z
    return matrix


EGO2GLOBAL = pose(612.3, 487.9, 0.4, 37.0, 0.8, -0.6)
LIDAR2EGO = pose(0.94, 0.02, 1.84, -89.6, 0.9, 0.4)


class World:
    """Random polygons, some with holes, lines and boxes around the vehicle, which a motion of the plane may move."""

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        around = EGO2GLOBAL[:2, 3]
        self.areas = [(name, self._star(rng, around)) for name in AREAS for _ in range(4)]
        self.lines = [(name, around + rng.uniform(-70, 70, (rng.integers(2, 6), 2))) for name in LINES[:2] * 5]
        sizes = rng.uniform((1.5, 0.8, 1.0), (11.0, 3.0, 3.0), (60, 3))
        boxes = np.concatenate(
            [rng.uniform(-58, 58, (60, 2)), rng.uniform(-2, 0, (60, 1)), sizes, rng.uniform(-4, 4, (60, 1))], axis=1
        )
        names, levels = rng.choice([*VEHICLES, 'pedestrian'], 60), rng.integers(1, 5, 60)
        self.footprints = Footprints.of_boxes(boxes, names, levels)

    def _star(self, rng, around):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
        star = np.stack([np.cos(angles), np.sin(angles)], axis=1) * rng.uniform(0.5, 1, (9, 1))
        return [around + rng.uniform(-45, 45, 2) + scale * star for scale in (25.0, 8.0)[: rng.integers(1, 3)]]

    def labels(self, protocol, root, move=lambda points: points):
        """Draw the world after each global point of it was moved."""
        file = ExpansionFile()
        for name, polygon in self.areas:
            file.add_area(name, [move(ring) for ring in polygon])
        for name, line in self.lines:
            file.add_line(name, move(line))
        file.write(root)
        lidar2global = EGO2GLOBAL @ LIDAR2EGO
        corners = self.footprints.corners @ lidar2global[:3, :3].T + lidar2global[:3, 3]
        corners[..., :2] = move(corners[..., :2].reshape(-1, 2)).reshape(-1, 4, 2)
        outlines = [outline if _is_counter_clockwise(outline) else outline[::-1] for outline in corners]
        moved = (np.array(outlines) - lidar2global[:3, 3]) @ lidar2global[:3, :3]
        footprints = Footprints(moved, self.footprints.names, self.footprints.visibility)
        expansion = read_expansion(root, LOCATION, protocol.areas + protocol.lines, 'a test')
        return map_labels(protocol, expansion, footprints, EGO2GLOBAL, LIDAR2EGO)


def _is_counter_clockwise(outline):
    x, y = (outline - outline[0])[:, :2].T
    return np.dot(x, np.roll(y, -1)) > np.dot(y, np.roll(x, -1))


def moving(protocol, matrix, shift=(0.0, 0.0)):
    """A motion of global points that is this matrix and shift in the plane of the protocol's frame."""
    plane = plane_to_global(protocol.frame, EGO2GLOBAL, LIDAR2EGO)

    def move(points):
        moved = from_global(points, plane) @ np.array(matrix).T + shift
        return moved @ plane[:, :2].T + plane[:, 2]

    return move


@pytest.mark.parametrize('name', PROTOCOLS)
def test_the_raster_of_a_moved_world_is_the_moved_raster(name, tmp_path):
    protocol, world = find_protocol(name), World()
    labels = world.labels(protocol, tmp_path / 'still')
    # Every channel has something and not everything, so the comparisons below can fail.
    shares = (labels == 1).mean(axis=(1, 2))
    assert ((shares > 0.005) & (shares < 0.9)).all()
    assert (IGNORED in labels) == (protocol.least_visibility > 1)

    grid = protocol.grid
    rows, columns = 7, -12
    shifted = world.labels(
        protocol, tmp_path / 'shifted', moving(protocol, np.eye(2), (columns * grid.cell_x, rows * grid.cell_y))
    )
    np.testing.assert_array_equal(shifted[:, rows:, :columns], labels[:, :-rows, -columns:])
    turned = world.labels(protocol, tmp_path / 'turned', moving(protocol, [[0, -1], [1, 0]]))
    # Rows grow forward and columns to the right: a turn to the left takes what was on the right to the front.
    np.testing.assert_array_equal(turned, np.rot90(labels, axes=(2, 1)))
    np.testing.assert_array_equal(turned[:, -1], labels[:, ::-1, -1])
    flipped = world.labels(protocol, tmp_path / 'flipped', moving(protocol, [[-1, 0], [0, 1]]))
    np.testing.assert_array_equal(flipped, labels[:, :, ::-1])
    backwards = world.labels(protocol, tmp_path / 'backwards', moving(protocol, [[1, 0], [0, -1]]))
    np.testing.assert_array_equal(backwards, labels[:, ::-1])


def one_box(x, y, name='car', level=4):
    return Footprints.of_boxes(np.array([[x, y, 0.0, 4.0, 2.0, 1.5, np.pi / 2]]), np.array([name]), np.array([level]))


def test_rows_grow_forward_and_columns_to_the_right():
    labels = map_labels(find_protocol('paper'), None, one_box(20.0, 30.0), EGO2GLOBAL, LIDAR2EGO)
    rows, columns = np.nonzero(labels[0])
    # A car of 4 m along y and 2 m along x, its middle 30 m ahead and 20 m to the right: cells of 0.512 m.
    assert rows.mean() * 0.512 - 51.2 + 0.256 == pytest.approx(30, abs=0.3)
    assert columns.mean() * 0.512 - 51.2 + 0.256 == pytest.approx(20, abs=0.3)
    assert np.ptp(rows) + 1 in (7, 8) and np.ptp(columns) + 1 in (3, 4)
    assert not labels[2:].any()


def test_frames_differ_as_the_sensors_lie():
    """The LiDAR lies 0.94 m ahead of the vehicle's origin, so all is nearer to it."""
    lidar, ego = (
        map_labels(find_protocol(name), None, one_box(0.0, 20.0), EGO2GLOBAL, LIDAR2EGO)[0]
        for name in ('paper', 'lss')
    )
    ahead = [
        np.nonzero(labels)[0].mean() * cell - reach for labels, cell, reach in ((lidar, 0.512, 51.2), (ego, 0.5, 50))
    ]
    assert ahead[1] - ahead[0] == pytest.approx(0.94, abs=0.3)


def test_planes_of_frames():
    flat = plane_to_global('flat_ego', EGO2GLOBAL, LIDAR2EGO)
    np.testing.assert_allclose(flat[:, 2], EGO2GLOBAL[:2, 3])
    heading = np.deg2rad(37.0)
    np.testing.assert_allclose(flat[:, 1], [np.cos(heading), np.sin(heading)], atol=1e-3)
    np.testing.assert_allclose(flat[:, 0], [np.sin(heading), -np.cos(heading)], atol=1e-3)
    # The point under the vehicle's origin, seen from the LiDAR.
    beneath = np.linalg.inv(LIDAR2EGO) @ [0, 0, 0, 1]
    lidar = plane_to_global('lidar', EGO2GLOBAL, LIDAR2EGO)
    np.testing.assert_allclose(lidar[:, :2] @ beneath[:2] + lidar[:, 2], EGO2GLOBAL[:2, 3], atol=1e-9)
    ego = plane_to_global('ego', EGO2GLOBAL, LIDAR2EGO)
    there = between_planes(ego, lidar)
    np.testing.assert_allclose(there[:, 2], beneath[:2], atol=1e-9)
    with pytest.raises(ValueError, match="no frame 'camera' of maps"):
        plane_to_global('camera', EGO2GLOBAL, LIDAR2EGO)


def test_boxes_of_low_visibility_are_ignored_where_the_protocol_says_so():
    for level, label in ((1, IGNORED), (2, 1)):
        labels = map_labels(find_protocol('cvt'), None, one_box(5.0, 5.0, level=level), EGO2GLOBAL, LIDAR2EGO)
        assert set(np.unique(labels[0])) == {0, label}
    labels = map_labels(find_protocol('paper'), None, one_box(5.0, 5.0, level=1), EGO2GLOBAL, LIDAR2EGO)
    assert set(np.unique(labels[0])) == {0, 1}


def test_which_classes_are_vehicles():
    paper = find_protocol('paper')
    for name, channels in (('car', [True, True]), ('bicycle', [False, True]), ('pedestrian', [False, False])):
        labels = map_labels(paper, None, one_box(5.0, 5.0, name), EGO2GLOBAL, LIDAR2EGO)
        assert [bool(channel.any()) for channel in labels[:2]] == channels


def test_wider_lines_for_petrv2(tmp_path):
    file = ExpansionFile()
    plane = plane_to_global('lidar', EGO2GLOBAL, LIDAR2EGO)
    file.add_line('road_divider', np.array([[3.3, -60.0], [3.3, 60.0]]) @ plane[:, :2].T + plane[:, 2])
    file.write(tmp_path)
    widths = []
    for name in ('paper', 'petrv2'):
        protocol = find_protocol(name)
        expansion = read_expansion(tmp_path, LOCATION, protocol.areas + protocol.lines, 'a test')
        labels = map_labels(protocol, expansion, one_box(0, 0), EGO2GLOBAL, LIDAR2EGO)
        widths.append(labels[protocol.class_names.index('lane_boundary')].sum(axis=1))
    assert (widths[0] == 1).all() and (widths[1] == 2).all()


def test_an_unknown_protocol_is_refused():
    with pytest.raises(ValueError, match="no map protocol 'lsss': choose one of paper, lss, cvt, petrv2, bevfusion"):
        find_protocol('lsss')
