"""Boxes, points, poses and images held against each other: unharmed data passes, each planted fault is told."""

import copy
from collections.abc import Callable

import numpy as np
import pytest

from bevformer_plugin.datasets.infos import load_infos
from bevformer_plugin.datasets.infos.nuscenes_tables import CATEGORIES
from bevformer_plugin.diagnosis.dataroot import entries_of_tables
from bevformer_plugin.diagnosis.doctor import examine_alignment
from bevformer_plugin.diagnosis.image_alignment import depth_edges
from bevformer_plugin.diagnosis.page import Verdict
from bevformer_plugin.synthetic import create_synthetic_world

MATRIX = np.array


@pytest.fixture(scope='module')
def synthetic(tmp_path_factory):
    """Root and entries of a world with moving vehicles: 3 scenes of 6 keyframes, 320 x 180 pixels."""
    root = tmp_path_factory.mktemp('alignment') / 'world'
    create_synthetic_world(root, 2, 1, 6, seed=0, image_size=(320, 180), workers=2)
    return root, entries_of_tables(root, 'v1.0-mini')[1]


@pytest.fixture(scope='module')
def real(shared_dir):
    root = shared_dir / 'real' / 'nuscenes'
    return root, entries_of_tables(root, 'v1.0-mini')[1]


def examine(data, change: Callable[[dict], None] | None = None):
    """Lines of the alignment by subject, of entries that a change has spoilt one by one."""
    root, entries = data
    entries = copy.deepcopy(entries)
    for entry in entries if change else ():
        change(entry)
    return {line.subject: line for line in examine_alignment(root, entries, CATEGORIES)}


def wrong(lines):
    return {subject for subject, line in lines.items() if line.verdict is Verdict.WRONG}


def boxes(change: Callable[[list[float]], list[float]]):
    def spoil(entry):
        for instance in entry['instances']:
            instance['bbox_3d'] = change(instance['bbox_3d'])

    return spoil


def poses(change: Callable[[np.ndarray], np.ndarray]):
    def spoil(entry):
        entry['ego2global'] = change(MATRIX(entry['ego2global'])).tolist()

    return spoil


def cameras(change: Callable[[dict], None]):
    def spoil(entry):
        for image in entry['images'].values():
            change(image)

    return spoil


def about_z(degrees):
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[cos, -sin, 0, 0], [sin, cos, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def turn_cameras(degrees):
    """About the camera's vertical axis, its y."""
    axes = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])  # x forward, y left to optical
    return cameras(
        lambda image: image.update(lidar2cam=(axes @ about_z(degrees) @ axes.T @ MATRIX(image['lidar2cam'])).tolist())
    )


def turned_back(pose):
    return np.block([[pose[:2, :2].T, pose[:2, 2:]], [pose[2:, :2], pose[2:, 2:]]])


def transposed(image):
    matrix = MATRIX(image['lidar2cam'])
    matrix[:3, :3] = matrix[:3, :3].T
    image['lidar2cam'] = matrix.tolist()


def swapped(entry):
    left, right = (entry['images'][name] for name in ('CAM_FRONT_LEFT', 'CAM_FRONT_RIGHT'))
    for field in ('lidar2cam', 'cam2img'):
        left[field], right[field] = right[field], left[field]


def local_boxes(entry):
    """Boxes that were in the vehicle's frame and were taken for global ones: they move as the vehicle moves back."""
    ego2global = MATRIX(entry['ego2global'])
    lidar2ego = MATRIX(entry['lidar_points']['lidar2ego'])
    back = np.linalg.inv(ego2global @ lidar2ego) @ np.linalg.inv(ego2global) @ (ego2global @ lidar2ego)
    for instance in entry['instances']:
        x, y, z, *size, yaw = instance['bbox_3d']
        x, y, z, _ = back @ [x, y, z, 1]
        instance['bbox_3d'] = [x, y, z, *size, yaw + np.arctan2(back[1, 0], back[0, 0])]


def test_nothing_is_wrong_with_the_synthetic_world(synthetic):
    lines = examine(synthetic)
    assert wrong(lines) == set(), lines
    assert lines['boxes'].text.startswith('hold 100% of the ')
    assert lines['poses'].verdict is Verdict.OK and lines['parked things'].verdict is Verdict.OK
    assert lines['parked things'].text.startswith('move by 0.00 m')
    assert sum(subject.startswith('CAM') for subject in lines) == 6


def test_nothing_is_wrong_with_the_real_frames(real):
    lines = examine(real)
    assert {line.verdict for line in lines.values()} == {Verdict.OK}, lines
    assert lines['boxes'].text == 'hold 100% of the 964 points that the tables say are in 50 boxes'
    assert len(lines) == 9


CLOCKWISE = 'yaw is counted clockwise, as by mmdetection3d before 1.0'
BOXES = {
    'before 1.0': (CLOCKWISE, lambda b: [*b[:3], b[4], b[3], b[5], -b[6] - np.pi / 2]),
    'clockwise': (CLOCKWISE, lambda b: [*b[:6], -b[6]]),
    'swapped': ('length and width change places', lambda b: [*b[:3], b[4], b[3], *b[5:]]),
    'quarter': ('length and width change places', lambda b: [*b[:6], b[6] - np.pi / 2]),
    'bottom': ('z is that of the bottom', lambda b: [*b[:2], b[2] - b[5] / 2, *b[3:]]),
    'forward': ('x and y are forward and left', lambda b: [b[1], -b[0], *b[2:6], b[6] - np.pi / 2]),
}


@pytest.mark.parametrize('name', BOXES)
def test_boxes_of_another_convention(synthetic, name):
    reading, change = BOXES[name]
    lines = examine(synthetic, boxes(change))
    assert lines['boxes'].verdict is Verdict.WRONG and f'but 100% if {reading}: ' in lines['boxes'].text, lines[
        'boxes'
    ]


@pytest.mark.parametrize('name', ['swapped', 'quarter', 'bottom', 'forward'])
def test_real_boxes_of_another_convention(real, name):
    """The others look alike here: all cars of these four frames stand along one street."""
    reading, change = BOXES[name]
    lines = examine(real, boxes(change))
    assert lines['boxes'].verdict is Verdict.WRONG and f'% if {reading}: ' in lines['boxes'].text, lines['boxes']


def test_boxes_elsewhere(synthetic):
    lines = examine(synthetic, boxes(lambda b: [b[0] + 30, *b[1:]]))
    assert 'boxes and points are not in one frame' in lines['boxes'].text


POSES = {
    'the poses are inverted': np.linalg.inv,
    'say that the vehicle stands still': lambda pose: np.eye(4),
}


@pytest.mark.parametrize('what', POSES)
@pytest.mark.parametrize('data', ['synthetic', 'real'])
def test_wrong_poses(request, data, what):
    lines = examine(request.getfixturevalue(data), poses(POSES[what]))
    assert lines['poses'].verdict is Verdict.WRONG and what in lines['poses'].text, lines['poses']


@pytest.mark.parametrize('data', ['synthetic', 'real'])
def test_yaw_of_the_wrong_sign(request, data):
    lines = examine(request.getfixturevalue(data), poses(turned_back))
    assert {'poses', 'parked things'} <= wrong(lines) and 'if their yaw has the other sign' in lines['poses'].text


def test_boxes_in_the_frame_of_the_vehicle(synthetic):
    lines = examine(synthetic, local_boxes)
    assert 'parked things' in wrong(lines), lines['parked things']


@pytest.mark.parametrize('degrees', [-4, 3])
@pytest.mark.parametrize('data', ['synthetic', 'real'])
def test_turned_cameras(request, data, degrees):
    """Each camera that can be judged is told to be turned back by the angle."""
    lines = examine(request.getfixturevalue(data), turn_cameras(degrees))
    judged = {subject: line.text for subject, line in lines.items() if 'if the camera is turned by ' in line.text}
    angles = [float(text.split('turned by ')[1].split(' ')[0]) for text in judged.values()]
    assert len(judged) >= 4 and len(wrong(lines)) >= 2, lines
    assert abs(abs(np.median(angles)) - abs(degrees)) <= 0.5


@pytest.mark.parametrize('change', [cameras(transposed), swapped], ids=['transposed', 'swapped'])
@pytest.mark.parametrize('data', ['synthetic', 'real'])
def test_cameras_with_other_matrices(request, data, change):
    lines = examine(request.getfixturevalue(data), change)
    assert [subject for subject in wrong(lines) if subject.startswith('CAM')], lines


def test_no_lidar_is_said(synthetic):
    def without(entry):
        entry['lidar_points']['lidar_path'] = ''

    lines = examine(synthetic, without)
    assert set(lines) == {'parked things', 'LiDAR'} and wrong(lines) == set()
    assert 'no two successive keyframes have points' in lines['LiDAR'].text


def test_depth_edges():
    """A wall at 20 m with a post at 10 m before it: the post's two sides are the edges, and nothing else."""
    azimuth = np.radians(np.arange(-30, 30, 0.5))
    distance = np.where(np.abs(azimuth) < np.radians(2), 10.0, 20.0)
    points = np.stack([distance * np.cos(azimuth), distance * np.sin(azimuth), *np.zeros((3, len(azimuth)))], axis=1)
    edges = depth_edges(points.astype(np.float32))
    assert len(edges) == 2
    np.testing.assert_allclose(np.linalg.norm(edges, axis=1), 10, atol=1e-4)


def test_infos_serve_as_well_as_tables(info_files, synthetic_root):
    """The tiny world that all tests share, 200 x 112 pixels, from its info files."""
    entries = [entry for path in info_files.values() for entry in load_infos(path)['data_list']]
    lines = examine((synthetic_root, entries))
    assert wrong(lines) == set(), lines
