"""Cameras of seven conventions project a point where the convention's own formulas, written out here, project it."""

import math
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from bevformer_plugin.deployment import Camera
from bevformer_plugin.errors import InputError

SIZE = (1280, 720)
K = [[900.0, 0, 650], [0, 910, 350], [0, 0, 1]]
# Ahead of the vehicle, a little to each side and at several heights, in its frame: x forward, y left, z up.
POINTS = [(12.0, 1.5, 0.3), (20.0, -4.0, 2.0), (35.0, 6.0, 1.0)]


def project(camera, point):
    """The pixel of a point of the vehicle's frame, by the camera's own projection."""
    u, v, depth, _ = camera.ego2img @ [*point, 1]
    return u / depth, v / depth


def quaternion_turned(q, vector):
    """A vector turned by a quaternion (w, x, y, z), by the formula v + 2 w (u x v) + 2 u x (u x v)."""
    w, u = q[0], np.array(q[1:])
    first = np.cross(u, vector)
    return np.array(vector) + 2 * w * first + 2 * np.cross(u, first)


def conjugate(q):
    return (q[0], -q[1], -q[2], -q[3])


def pixel_of(optical):
    """The pixel of a point in optical axes, by K alone."""
    x, y, z = optical
    return K[0][0] * x / z + K[0][2], K[1][1] * y / z + K[1][2]


# Looks ahead, 5 degrees to the left: the product of a yaw and of the turn from optical to vehicle axes.
YAW = math.radians(5)
OPTICAL = (0.5, -0.5, 0.5, -0.5)
COS, SIN = math.cos(YAW / 2), math.sin(YAW / 2)
LOOKS_LEFT = (
    COS * OPTICAL[0] - SIN * OPTICAL[3],
    COS * OPTICAL[1] - SIN * OPTICAL[2],
    COS * OPTICAL[2] + SIN * OPTICAL[1],
    COS * OPTICAL[3] + SIN * OPTICAL[0],
)
MOUNT = (1.7, 0.1, 1.5)


def expected_of_mount(point):
    """The pixel of a point for the camera at MOUNT that is turned by YAW, by trigonometry."""
    ahead, left, up = np.subtract(point, MOUNT)
    forward = math.cos(YAW) * ahead + math.sin(YAW) * left
    aside = -math.sin(YAW) * ahead + math.cos(YAW) * left
    return pixel_of((-aside, -up, forward))


@pytest.mark.parametrize('point', POINTS)
def test_nuscenes(point):
    row = {'translation': MOUNT, 'rotation': LOOKS_LEFT, 'camera_intrinsic': K}
    camera = Camera.from_nuscenes(row, SIZE)
    assert project(camera, point) == pytest.approx(expected_of_mount(point), abs=1e-6)
    by_formula = quaternion_turned(conjugate(LOOKS_LEFT), np.subtract(point, MOUNT))
    assert project(camera, point) == pytest.approx(pixel_of(by_formula), abs=1e-6)
    assert camera.yaw == pytest.approx(5)


@pytest.mark.parametrize('point', POINTS)
@pytest.mark.parametrize('as_message', [True, False])
def test_ros(point, as_message):
    p = [*K[0], -90.0, *K[1], 0.0, *K[2], 0.0]  # the second camera of a pair with a baseline of 10 cm
    fields = {'k': [1.0] * 9, 'p': p, 'd': [0.1] * 5, 'width': SIZE[0], 'height': SIZE[1]}
    info = SimpleNamespace(**fields) if as_message else {name.upper(): value for name, value in fields.items()}
    if not as_message:
        info = {**info, 'width': SIZE[0], 'height': SIZE[1]}
    w, x, y, z = LOOKS_LEFT
    camera = Camera.from_ros(info, (MOUNT, (x, y, z, w)), rectified=True)
    ox, oy, oz = quaternion_turned(conjugate(LOOKS_LEFT), np.subtract(point, MOUNT))
    u, v, depth = K[0][0] * ox + K[0][2] * oz - 90.0, K[1][1] * oy + K[1][2] * oz, oz  # P (x, y, z, 1)
    assert project(camera, point) == pytest.approx((u / depth, v / depth), abs=1e-6)


@pytest.mark.parametrize('point', POINTS)
def test_ros_raw_images(point):
    info = {'k': np.ravel(K), 'p': np.zeros(12), 'd': [0.0] * 5, 'width': SIZE[0], 'height': SIZE[1]}
    transform = np.eye(4)
    transform[:3, :3] = np.stack([quaternion_turned(LOOKS_LEFT, axis) for axis in np.eye(3)], axis=1)
    transform[:3, 3] = MOUNT
    camera = Camera.from_ros(info, transform, rectified=False)
    assert project(camera, point) == pytest.approx(expected_of_mount(point), abs=1e-6)


@pytest.mark.parametrize('point', POINTS)
def test_opencv(point):
    rvec, tvec = np.array([1.2, -1.25, 1.15]), np.array([0.2, 1.4, -1.6])
    camera = Camera.from_opencv(K, rvec, tvec, SIZE, distortion=np.zeros(5))
    expected, _ = cv2.projectPoints(np.array([point]), rvec, tvec, np.array(K), None)
    assert project(camera, point) == pytest.approx(expected.ravel(), abs=1e-6)


@pytest.mark.parametrize('point', POINTS)
def test_kitti(point):
    p2 = np.array([[721.5377, 0, 609.5593, 44.85728], [0, 721.5377, 172.854, 0.2163791], [0, 0, 1, 0.002745884]])
    small, tilt = math.radians(0.8), math.radians(1.1)
    r0 = np.array([[math.cos(small), math.sin(small), 0], [-math.sin(small), math.cos(small), 0], [0, 0, 1]])
    down = np.array([[1, 0, 0], [0, math.cos(tilt), -math.sin(tilt)], [0, math.sin(tilt), math.cos(tilt)]])
    turn = down @ np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])
    tr = np.column_stack([turn, [-0.004, -0.0763, -0.2718]])
    camera = Camera.from_kitti(p2, r0, tr, (1242, 375))
    velo = np.subtract(point, (0.76, 0, 1.73))
    rectified = r0 @ (turn @ velo + tr[:, 3])
    u, v, depth = p2 @ [*rectified, 1]
    assert project(camera, point) == pytest.approx((u / depth, v / depth), abs=1e-6)


@pytest.mark.parametrize('point', POINTS)
def test_argoverse2(point):
    intrinsics = {'fx_px': 900.0, 'fy_px': 910.0, 'cx_px': 650.0, 'cy_px': 350.0, 'width_px': 1280, 'height_px': 720}
    pose = dict(zip(('qw', 'qx', 'qy', 'qz', 'tx_m', 'ty_m', 'tz_m'), (*LOOKS_LEFT, *MOUNT), strict=True))
    camera = Camera.from_argoverse2(intrinsics, pose)
    assert camera.size == SIZE
    assert project(camera, point) == pytest.approx(expected_of_mount(point), abs=1e-6)


@pytest.mark.parametrize('point', POINTS)
def test_waymo(point):
    c, s = math.cos(YAW), math.sin(YAW)
    extrinsic = [c, -s, 0, MOUNT[0], s, c, 0, MOUNT[1], 0, 0, 1, MOUNT[2], 0, 0, 0, 1]
    camera = Camera.from_waymo([900, 910, 650, 350, 0, 0, 0, 0, 0], extrinsic, SIZE)
    assert project(camera, point) == pytest.approx(expected_of_mount(point), abs=1e-6)


@pytest.mark.parametrize('point', POINTS)
@pytest.mark.parametrize('angles', [(0, 0, 0), (0, -5, 0), (-4, 10, 0), (3, -20, 6)])
def test_carla(point, angles):
    pitch, yaw, roll = map(math.radians, angles)
    location, fov = (1.7, -0.1, 1.5), 70.0
    camera = Camera.from_carla(location, angles, fov, SIZE)
    # The matrix of carla.Transform, whose columns are the camera's axes ahead, right and up in Unreal's coordinates.
    cp, sp, cy, sy = math.cos(pitch), math.sin(pitch), math.cos(yaw), math.sin(yaw)
    cr, sr = math.cos(roll), math.sin(roll)
    ahead = np.array([cp * cy, cp * sy, sp])
    right = np.array([cy * sp * sr - sy * cr, sy * sp * sr + cy * cr, -cp * sr])
    up = np.array([-cy * sp * cr - sy * sr, -sy * sp * cr + cy * sr, cp * cr])
    unreal = np.subtract((point[0], -point[1], point[2]), location)
    focal = 1280 / (2 * math.tan(math.radians(35)))
    depth = unreal @ ahead
    expected = (640 + focal * (unreal @ right) / depth, 360 - focal * (unreal @ up) / depth)
    assert project(camera, point) == pytest.approx(expected, abs=1e-6)


def test_resized_pixels_scale_with_the_image():
    row = {'translation': MOUNT, 'rotation': LOOKS_LEFT, 'camera_intrinsic': K}
    camera = Camera.from_nuscenes(row, SIZE)
    u, v = project(camera, POINTS[0])
    assert project(camera.resized((640, 240)), POINTS[0]) == pytest.approx((u / 2, v / 3))
    assert camera.resized((640, 240)).size == (640, 240)


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: Camera(np.eye(3), np.eye(3), SIZE), r'camera2ego has shape \(4, 4\), got \(3, 3\)'),
        (lambda: Camera(np.full((3, 3), np.nan), np.eye(4), SIZE), 'intrinsics holds numbers that are not finite'),
        (lambda: Camera('wide', np.eye(4), SIZE), "intrinsics is 3 x 3 numbers, got 'wide'"),
        (lambda: Camera(np.diag([-900, 900, 1]), np.eye(4), SIZE), 'focal lengths -900 and 900'),
        (lambda: Camera(np.diag([900, 900, 2]), np.eye(4), SIZE), 'last row of intrinsics'),
        (lambda: Camera(K, np.eye(4), (1280.5, 720)), 'size is .* whole pixels'),
        (lambda: Camera.from_nuscenes({'translation': MOUNT}, SIZE), 'lacks rotation, camera_intrinsic; it has'),
        (
            lambda: Camera.from_nuscenes(
                {'translation': MOUNT, 'rotation': [2, 0, 0, 0], 'camera_intrinsic': K}, SIZE
            ),
            'length 1, .* has 2',
        ),
        (lambda: Camera.from_opencv(K, [0, 0, 0], [0, 0, 0], SIZE, [0.1, 0, 0, 0]), r'cv2\.undistort\(image'),
        (lambda: Camera.from_waymo([9, 9, 6, 3, 0.1, 0, 0, 0, 0], np.eye(4), SIZE), r'cv2\.undistort\(image'),
        (
            lambda: Camera.from_ros(
                {'k': np.ravel(K), 'd': [0.2], 'width': 9, 'height': 9}, np.eye(4), rectified=False
            ),
            'rectified=True',
        ),
        (lambda: Camera.from_ros({'width': 9, 'height': 9}, np.eye(4), rectified=True), 'camera_info has no p'),
        (
            lambda: Camera.from_ros({'width': 9, 'height': 9, 'binning_x': 2}, np.eye(4), rectified=True),
            'binning_x or binning_y above 1',
        ),
        (lambda: Camera.from_carla((0, 0, 0), (0, 0, 0), 180, SIZE), 'fov is degrees between 0 and 180, got 180'),
        (lambda: Camera.from_argoverse2({'fx_px': 1}, {}), 'intrinsics lacks fy_px'),
        (lambda: Camera.from_nuscenes(None, SIZE), 'calibrated_sensor is a row with translation, .*, got None'),
        (
            lambda: Camera.from_ros({'p': [0.0] * 12, 'width': 9, 'height': 9}, np.eye(4), rectified=True),
            'focal lengths 0 and 0',
        ),
        (
            lambda: Camera.from_ros(
                {'width': 9, 'height': 9, 'roi': {'width': 5, 'height': 9}}, np.eye(4), rectified=True
            ),
            'roi of 5 x 9 pixels at 0, 0: give the calibration of the images as they were cut',
        ),
        (lambda: Camera.from_ros({'width': 'wide', 'height': 9}, np.eye(4), rectified=True), 'size is 2 numbers'),
        (lambda: Camera.from_opencv(K, [0, 0, 0], [0, 0, 0], SIZE, 'plumb_bob'), "coefficients .* got 'plumb_bob'"),
        (lambda: Camera.from_waymo([9, 9, 6, 3, 0, 0, 0, 0, 0], [[1, 2], [3]], SIZE), 'extrinsic is 16 numbers'),
        (lambda: Camera.from_kitti(np.zeros((3, 4)), np.eye(3), np.eye(4)[:3], SIZE), 'focal lengths 0 and 0'),
        (
            lambda: Camera.from_kitti(np.eye(4)[:3], np.zeros((3, 3)), np.eye(4)[:3], SIZE),
            'r0_rect and tr_velo_to_cam have no inverse',
        ),
        (lambda: Camera.from_carla((0, 0, 0), (0, 0, 0), '90', SIZE), "fov is degrees between 0 and 180, got '90'"),
    ],
)
def test_what_is_no_camera_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
