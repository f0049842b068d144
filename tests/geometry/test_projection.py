"""Projection of pillars against a plain loop and against mmdet3d's own."""

import math

import numpy as np
import pytest
import torch
from mmdet3d.structures import points_cam2img

from bevformer_plugin.geometry import BEVGrid, pillar_points, project_to_cameras

GRID = BEVGrid(6, 9, (-40.0, -30.0, -5.0, 40.0, 30.0, 3.0))
IMAGE_HW = (90, 160)


def camera_matrix(heading: float, x: float = 0.0, focal: float = 80.0) -> np.ndarray:
    """LiDAR metres to pixels of a level camera at (x, 0, 0) that looks along ``heading`` degrees (0 is +x)."""
    angle = math.radians(heading)
    rotation = np.array([[math.sin(angle), -math.cos(angle), 0], [0, 0, -1], [math.cos(angle), math.sin(angle), 0]])
    lidar2cam = np.eye(4)
    lidar2cam[:3, :3] = rotation
    lidar2cam[:3, 3] = -rotation @ [x, 0, 0]
    cam2img = np.eye(4)
    cam2img[:2, :3] = [[focal, 0, IMAGE_HW[1] / 2], [0, focal, IMAGE_HW[0] / 2]]
    return cam2img @ lidar2cam


@pytest.fixture
def lidar2img():
    """(2, 3, 4, 4): two samples of different rigs."""
    headings = [[90, 0, 200], [45, -130, 10]]
    return torch.from_numpy(np.array([[camera_matrix(h, x) for h in row] for x, row in enumerate(headings)]))


def test_against_a_loop(lidar2img):
    points = pillar_points(GRID, 4)
    reference, visible = project_to_cameras(points, lidar2img, IMAGE_HW)
    assert reference.shape == (2, 3, 54, 4, 2)
    assert visible.shape == (2, 3, 54, 4)
    assert 0.05 < visible.float().mean() < 0.5
    height, width = IMAGE_HW
    for sample, camera, query, level in np.ndindex(*visible.shape):
        point = np.append(points[level, query].double().numpy(), 1)
        u, v, depth = (lidar2img[sample, camera].numpy() @ point)[:3]
        inside = depth > 1e-5 and 0 < u / depth / width < 1 and 0 < v / depth / height < 1
        assert visible[sample, camera, query, level].item() == inside
        if inside:
            expected = [u / depth / width, v / depth / height]
            assert reference[sample, camera, query, level].tolist() == pytest.approx(expected, abs=1e-5)


def test_against_mmdet3d(lidar2img):
    points = pillar_points(GRID, 4)
    reference, visible = project_to_cameras(points, lidar2img[:1, :1], IMAGE_HW)
    pixels = points_cam2img(points.transpose(0, 1), lidar2img[0, 0].float())
    ours = reference[0, 0] * torch.tensor([IMAGE_HW[1], IMAGE_HW[0]])
    torch.testing.assert_close(ours[visible[0, 0]], pixels[visible[0, 0]], atol=1e-3, rtol=1e-5)


def test_what_lies_ahead_is_in_the_middle_of_the_front_camera():
    matrix = torch.from_numpy(camera_matrix(90))[None, None]
    points = torch.tensor([[[0.0, 20.0, 0.0], [5.0, 20.0, 0.0], [0.0, -20.0, 0.0], [0.0, 20.0, 1.0]]])
    reference, visible = project_to_cameras(points, matrix, IMAGE_HW)
    assert visible[0, 0, :, 0].tolist() == [True, True, False, True]
    assert reference[0, 0, 0, 0].tolist() == pytest.approx([0.5, 0.5])
    assert reference[0, 0, 1, 0].tolist() == pytest.approx([0.5 + 80 * 5 / 20 / 160, 0.5])  # right is right
    assert reference[0, 0, 3, 0].tolist() == pytest.approx([0.5, 0.5 - 80 * 1 / 20 / 90])  # up is up


def test_border_and_camera_plane_are_not_visible():
    identity = torch.eye(4)[None, None]
    points = torch.tensor([[[0.0, 5.0, 1.0], [10.0, 5.0, 1.0], [5.0, 10.0, 1.0], [5.0, 5.0, 1e-6], [5.0, 5.0, 1.0]]])
    _, visible = project_to_cameras(points, identity, (10, 10))
    assert visible[0, 0, :, 0].tolist() == [False, False, False, False, True]


def test_each_sample_keeps_its_own_cameras(lidar2img):
    points = pillar_points(GRID, 4)
    both = project_to_cameras(points, lidar2img, IMAGE_HW)
    for sample in range(2):
        alone = project_to_cameras(points, lidar2img[sample : sample + 1], IMAGE_HW)
        assert torch.equal(both[0][sample : sample + 1], alone[0])
        assert torch.equal(both[1][sample : sample + 1], alone[1])
    assert not torch.equal(both[1][0], both[1][1])


def test_autocast_leaves_it_in_float32(lidar2img):
    points = pillar_points(GRID, 4)
    expected, _ = project_to_cameras(points, lidar2img, IMAGE_HW)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        reference, _ = project_to_cameras(points, lidar2img, IMAGE_HW)
    assert torch.equal(reference, expected)


def test_matrices_of_another_shape_are_refused(lidar2img):
    with pytest.raises(ValueError, match=r'got \(3, 4, 4\)'):
        project_to_cameras(pillar_points(GRID, 4), lidar2img[0], IMAGE_HW)
