"""Boxes in camera images: cutting at the near plane and the image's sides, against the devkit on real frames."""

import numpy as np
import pytest
from nuscenes import NuScenes
from nuscenes.utils.geometry_utils import view_points

from bevformer_plugin.datasets.infos import create_nuscenes_infos
from bevformer_plugin.visualization import Boxes, FrameSource, boxes_in_image, draw_camera
from bevformer_plugin.visualization.camera_overlay import EDGES, NEAR, cut_segments

SIZE = (200, 100)
# A camera at the LiDAR that looks along y, with a focal length of 100 pixels.
FORWARD = np.array([(100.0, 100, 0, 0), (0, 50, -100, 0), (0, 1, 0, 0)])


def make_boxes(*rows, name='car'):
    values = np.array(rows, dtype=np.float64).reshape(-1, 9)
    return Boxes(values, (name,) * len(values), np.ones(len(values)))


def test_corners_4_to_7_are_the_front():
    boxes = make_boxes((3, 4, 1, 4, 2, 1.5, 0.7, 0, 0))
    ahead = boxes.corners[0, 4:].mean(0) - boxes.values[0, :3]
    np.testing.assert_allclose(ahead, [2 * np.cos(0.7), 2 * np.sin(0.7), 0], atol=1e-5)
    lengths = np.linalg.norm(np.diff(boxes.corners[0, EDGES], axis=1)[:, 0], axis=-1)
    np.testing.assert_allclose(sorted(lengths), sorted([4, 2, 1.5] * 4), rtol=1e-5)


def test_segments_are_cut_where_they_leave_the_view():
    segments = np.array(
        [
            [(0, 10, 0), (2, 10, 1)],  # inside
            [(0, 10, 0), (20, 10, 0)],  # leaves to the right, at x = 10
            [(1, -5, -0.05), (1, 5, -0.05)],  # comes from behind; at depth 1 it enters through the right side
            [(0, -5, 0.01), (0, 5, 0.01)],  # comes from behind; is cut at the near plane
            [(0, -5, 0), (0, -1, 0)],  # behind
            [(-20, 10, 0), (-20, 10, 3)],  # beside
            [(-12, 10, 8), (-8, 10, -8)],  # passes below or above a corner of the view only
        ],
        dtype=np.float64,
    )
    pixels, visible = cut_segments(segments, FORWARD, SIZE)
    assert visible.tolist() == [True, True, True, True, False, False, True]
    np.testing.assert_allclose(pixels[0], [(100, 50), (120, 40)])
    np.testing.assert_allclose(pixels[1], [(100, 50), (200, 50)])
    np.testing.assert_allclose(pixels[2], [(200, 55), (120, 51)])
    np.testing.assert_allclose(pixels[3], [(100, 50 - 100 * 0.01 / NEAR), (100, 49.8)])
    assert np.isnan(pixels[4:6]).all()
    assert ((pixels[6] >= -1e-9) & (pixels[6] <= [200 + 1e-9, 100 + 1e-9])).all()


def test_a_box_beside_the_camera_leaves_no_streaks():
    # A truck alongside: a part of it is behind the camera, where a plain division mirrors it into the image.
    boxes = make_boxes((2.5, 0, -0.5, 12, 2.5, 3, np.pi / 2, 0, 0))
    picture = draw_camera(np.zeros((100, 200, 3), np.uint8), FORWARD, make_boxes(), boxes, SIZE)
    rows, cols = np.nonzero(picture.any(-1))
    assert len(rows) > 100
    start, end = np.moveaxis(boxes.corners[0, EDGES], 1, 0)
    samples = start + np.linspace(0, 1, 2000)[:, None, None] * (end - start)
    tick = np.stack([np.full(2000, 2.5), np.linspace(0, 6, 2000), np.full(2000, -2)], axis=-1)[:, None]
    points = np.concatenate([samples, tick], axis=1).reshape(-1, 3) @ FORWARD[:, :3].T
    points = points[points[:, 2] > NEAR]
    drawn = points[:, :2] / points[:, 2:]
    drawn = drawn[((drawn > -5) & (drawn < [205, 105])).all(-1)]
    nearest = np.linalg.norm(drawn[None] - np.stack([cols, rows], axis=-1)[:, None], axis=-1).min(1)
    assert nearest.max() < 3


def test_styles_differ_and_pictures_scale():
    image = np.full((50, 100, 3), 60, np.uint8)
    matrix = np.diag([0.5, 0.5, 1]) @ FORWARD
    box, nothing = make_boxes((0, 10, 0, 2, 2, 6, 0, 0, 0)), make_boxes()
    empty = draw_camera(image, matrix, nothing, None, SIZE)
    true = draw_camera(image, matrix, box, None, SIZE)
    predicted = draw_camera(image, matrix, nothing, box, SIZE)
    assert empty.shape == true.shape == (100, 200, 3)
    assert (empty == 60).all()
    assert (true[40, 105] != 60).any()  # tinted inside
    assert (predicted[40, 105] == 60).all()  # only outlined
    columns = np.nonzero((predicted != empty).any(-1))[1]
    assert abs(columns.min() - (100 - 100 / 9)) <= 3  # the near face, one metre to each side at nine
    assert abs(columns.max() - (100 + 100 / 9)) <= 3


@pytest.fixture(scope='module')
def real_frames(shared_dir, tmp_path_factory):
    root = shared_dir / 'real/nuscenes'
    infos = create_nuscenes_infos(root, 'v1.0-mini', tmp_path_factory.mktemp('infos'), workers=1)
    return FrameSource(root, infos['mini_val'])


def test_real_keyframe_shows_25_boxes(real_frames):
    frame = real_frames.frame(real_frames.tokens_of_scene('scene-0103')[0])
    shown = {
        camera: int(boxes_in_image(frame.truth, frame.lidar2img(camera), (1600, 900)).sum())
        for camera in frame.info['images']
    }
    assert shown == {
        'CAM_FRONT': 14,
        'CAM_FRONT_LEFT': 5,
        'CAM_BACK': 3,
        'CAM_BACK_RIGHT': 2,
        'CAM_FRONT_RIGHT': 1,
        'CAM_BACK_LEFT': 0,
    }


def test_real_boxes_lie_where_the_devkit_puts_them(real_frames):
    nusc = NuScenes('v1.0-mini', str(real_frames.root), verbose=False)
    compared = 0
    for token, info in real_frames.infos.items():
        frame = real_frames.frame(token)
        instances = [instance['instance_token'] for instance in info['instances'] if instance['bbox_3d_isvalid']]
        index_of = {instance: index for index, instance in enumerate(instances)}
        for camera, image in info['images'].items():
            matrix = frame.lidar2img(camera)
            _, boxes, intrinsic = nusc.get_sample_data(image['sample_data_token'])
            for box in boxes:
                index = index_of.get(nusc.get('sample_annotation', box.token)['instance_token'])
                if index is None or box.corners()[2].min() < 1:
                    continue
                points = np.concatenate([frame.truth.values[index, None, :3], frame.truth.corners[index]])
                pixels = points @ matrix[:, :3].T + matrix[:, 3]
                pixels = pixels[:, :2] / pixels[:, 2:]
                points = np.concatenate([box.center[:, None], box.corners()], axis=1)
                expected = view_points(points, intrinsic, normalize=True)[:2].T
                np.testing.assert_allclose(pixels[0], expected[0], rtol=0, atol=0.01)
                # Our boxes stand on the LiDAR's plane, the devkit's on the global one, at an angle of 2.6 degrees.
                tolerance = 0.1 * np.ptp(expected, axis=0).max()
                np.testing.assert_allclose(pixels[1:].min(0), expected[1:].min(0), rtol=0, atol=tolerance)
                np.testing.assert_allclose(pixels[1:].max(0), expected[1:].max(0), rtol=0, atol=tolerance)
                compared += 1
    assert compared > 100
