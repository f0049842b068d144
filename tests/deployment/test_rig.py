"""A rig, and the file that describes one."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from bevformer_plugin.deployment import Camera, Rig
from bevformer_plugin.errors import InputError

K = [[900.0, 0, 650], [0, 910, 350], [0, 0, 1]]
AHEAD = np.array([[0.0, 0, 1, 1.7], [-1, 0, 0, 0.1], [0, -1, 0, 1.5], [0, 0, 0, 1]])


@pytest.fixture
def rig():
    back = np.array([[0.0, 0, -1, 0.1], [1, 0, 0, -0.2], [0, -1, 0, 1.6], [0, 0, 0, 1]])
    cameras = {
        'CAM_FRONT': Camera(K, AHEAD, (1280, 720)),
        'CAM_BACK': Camera([[500, 0, 330], [0, 500, 240], [0, 0, 1]], back, (640, 480)),
    }
    return Rig(cameras)


def test_a_file_keeps_the_numbers(rig, tmp_path):
    rig.to_file(tmp_path / 'rig.yaml')
    read = Rig.from_file(tmp_path / 'rig.yaml')
    assert list(read.cameras) == ['CAM_FRONT', 'CAM_BACK']
    assert (read.lidar2ego == rig.lidar2ego).all()
    for name, camera in rig.cameras.items():
        assert (read.cameras[name].intrinsics == camera.intrinsics).all()
        assert (read.cameras[name].camera2ego == camera.camera2ego).all()
        assert read.cameras[name].size == camera.size


@pytest.mark.parametrize('order', ['wxyz', 'xyzw'])
def test_a_file_may_have_quaternions(order, tmp_path):
    x, y, z, w = Rotation.from_matrix(AHEAD[:3, :3]).as_quat().tolist()
    quaternion = {'wxyz': [w, x, y, z], 'xyzw': [x, y, z, w]}[order]
    pose = f'{{translation: [1.7, 0.1, 1.5], rotation_{order}: {quaternion}}}'
    (tmp_path / 'rig.yaml').write_text(
        f'cameras:\n  CAM_FRONT: {{size: [1280, 720], intrinsics: {K}, camera2ego: {pose}}}\n'
    )
    assert Rig.from_file(tmp_path / 'rig.yaml').cameras['CAM_FRONT'].camera2ego == pytest.approx(AHEAD)


def test_lidar_and_vehicle_see_the_same_pixel(rig):
    """The default LiDAR is 0.94 m ahead, 1.84 m up, its x to the right and its y ahead."""
    in_ego, in_lidar = [20.0, 3.0, 1.0, 1], [-3.0, 20 - 0.94, 1 - 1.84, 1]
    camera = rig.cameras['CAM_FRONT']
    assert rig.lidar2img('CAM_FRONT') @ in_lidar == pytest.approx(camera.ego2img @ in_ego)


def test_moved_cameras_see_moved_points(rig):
    up = np.eye(4)
    up[2, 3] = 0.33
    before, after = (each.cameras['CAM_BACK'].ego2img for each in (rig, rig.moved(up)))
    assert after @ [-9.0, 1.0, 0.33, 1] == pytest.approx(before @ [-9.0, 1.0, 0.0, 1])


def test_resized_rigs_have_one_size(rig):
    assert {camera.size for camera in rig.resized((320, 180)).cameras.values()} == {(320, 180)}


def test_a_pose_that_is_no_rigid_motion_is_refused_by_name(rig):
    broken = Rig({**rig.cameras, 'CAM_BACK': Camera(K, AHEAD.T, (1280, 720))})
    with pytest.raises(InputError, match=r'camera2ego of CAM_BACK is no rotation .*check_rig'):
        broken.require_rigid()
    rig.require_rigid()


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('[', 'is no YAML'),
        ('5', 'is a mapping of cameras, lidar2ego, got 5'),
        ('lidar2ego: [1]', 'lacks cameras'),
        ('cameras: {}', 'at least one camera'),
        ('cameras: [1]', 'cameras of rig file .* is a mapping'),
        ('cameras: {A: {size: [2, 2]}}', 'camera A of rig file .* lacks camera2ego, intrinsics'),
        ('cameras: {A: {size: [2, 2], intrinsics: 1, camera2ego: 1, K: 2}}', 'camera A .* unknown keys K; known are'),
        ('cameras: {A: {size: [2, 2], intrinsics: 1, camera2ego: 1}}', 'camera A .* camera2ego is four rows'),
        (
            f'cameras: {{A: {{size: [2, 2], intrinsics: [1], camera2ego: {AHEAD.tolist()}}}}}',
            r'camera A .* intrinsics has shape',
        ),
        (
            'cameras: {A: {size: [2, 2], intrinsics: 1, camera2ego: {translation: [0, 0, 0], rotation: [1]}}}',
            'camera A .* give translation with rotation_wxyz or rotation_xyzw',
        ),
        ('car: 1\ncameras: {A: 1}', 'unknown keys car'),
        ('{cameras: {A: 1}, lidar2ego: null}', r'lidar2ego of rig file .*rig\.yaml is four rows .* got None'),
        ('cameras:\n  A: 1\n  B: 1\n  A: 2', 'A is given twice'),
    ],
)
def test_broken_files_are_refused(text, message, tmp_path):
    (tmp_path / 'rig.yaml').write_text(text)
    with pytest.raises(InputError, match=message):
        Rig.from_file(tmp_path / 'rig.yaml')


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda rig: Rig(list(rig.cameras.values())), 'are Camera objects by name, got list'),
        (lambda rig: Rig(rig.cameras, 'roof'), "lidar2ego of a rig is 4 x 4 numbers, got 'roof'"),
        (lambda rig: rig.moved((0, 0, 0.3)), r'ego2vehicle has shape \(4, 4\), got \(3,\)'),
        (lambda rig: rig.moved(2 * np.eye(4)), 'ego2vehicle is no rotation with a translation'),
    ],
)
def test_what_is_no_rig_is_refused(rig, make, message):
    with pytest.raises(InputError, match=message):
        make(rig)


def test_a_file_that_is_not_there():
    with pytest.raises(FileNotFoundError, match=r'rig file nowhere\.yaml does not exist'):
        Rig.from_file('nowhere.yaml')
