"""Faults of poses and timestamps, planted into real and made drives."""

import numpy as np
import pytest

from bevformer_plugin.deployment import Rig, check_rig
from tests.deployment.rigs import simulated_rigs

RIG = simulated_rigs(1)[0]
MIRROR = np.diag([1.0, -1, 1, 1])


def faults_of(poses=None, timestamps=None, rig: Rig = RIG) -> list[str]:
    return [finding.fault for finding in check_rig(rig, poses=poses, timestamps=timestamps)]


def drive(yaw: float, yaw_rate: float, speed: float, frames: int = 20, period: float = 0.5) -> np.ndarray:
    """Poses (frames, 3) of a vehicle that turns by degrees a second; yaw is the first heading in degrees."""
    times = np.linspace(0, period * (frames - 1), 50 * frames)
    headings = np.deg2rad(yaw + yaw_rate * times)
    steps = speed * np.gradient(times)
    x, y = 100 + np.cumsum(steps * np.cos(headings)), 200 + np.cumsum(steps * np.sin(headings))
    chosen = np.linspace(0, len(times) - 1, frames).round().astype(int)
    return np.column_stack([x, y, headings])[chosen]


def seconds(frames: int = 20, period: float = 0.5) -> np.ndarray:
    return 1.7e9 + period * np.arange(frames)


def planar(poses: np.ndarray) -> np.ndarray:
    return np.column_stack([poses[:, 0, 3], poses[:, 1, 3], np.arctan2(poses[:, 1, 0], poses[:, 0, 0])])


@pytest.fixture(params=['scene-0103', 'scene-0916'])
def real(request, drives):
    """A real drive: rig, poses and timestamps of its keyframes."""
    return drives[request.param]


def test_nothing_is_found_in_real_drives(real):
    poses, times = real.poses, real.timestamps
    for good in (poses, planar(poses), poses[::-1], np.repeat(poses[:1], len(poses), axis=0)):
        assert faults_of(good, times, real.rig) == []
        assert faults_of(good, times - times[0], real.rig) == []
        assert faults_of(good, None, real.rig) == []
    for start in range(0, len(poses) - 5, 5):
        assert faults_of(poses[start : start + 5], times[start : start + 5], real.rig) == []


def test_faults_of_real_drives_are_named(real):
    poses, times = real.poses, real.timestamps
    jumping = poses.copy()
    jumping[20:, 1, 3] += 40
    transposed = poses.copy()
    transposed[:, :3, :3] = poses[:, :3, :3].transpose(0, 2, 1)
    assert faults_of(jumping, times, real.rig) == ['pose_jump']
    assert faults_of(planar(poses) * [1, 1, -1], times, real.rig) == ['yaw_sign']
    assert faults_of(planar(poses) * [1, 1, 180 / np.pi], times, real.rig) == ['degrees_for_radians']
    assert faults_of(transposed, times, real.rig) == ['yaw_sign']
    assert faults_of(poses @ real.rig.lidar2ego, times, real.rig) == ['camera_pose']
    for camera in real.rig.cameras.values():
        assert faults_of(poses @ camera.camera2ego, times, real.rig) == ['camera_pose']


@pytest.mark.parametrize(('unit', 'name'), [(1e3, 'milliseconds'), (1e6, 'microseconds'), (1e9, 'nanoseconds')])
def test_other_units_of_real_times_are_named(real, unit, name):
    for times in (real.timestamps, real.timestamps - real.timestamps[0]):
        [finding] = check_rig(real.rig, poses=real.poses, timestamps=times * unit)
        assert finding.fault == 'timestamp_unit'
        assert finding.message.startswith(f'timestamps are {name}')


@pytest.mark.parametrize('period', [0.01, 0.05, 0.1, 0.5, 2.0])
def test_other_units_are_told_at_every_rate(period):
    for first in (0.0, 1.7e9):
        times = first + period * np.arange(10)
        assert faults_of(timestamps=times) == []
        for unit, name in ((1e6, 'microseconds'), (1e9, 'nanoseconds')):
            [finding] = check_rig(RIG, timestamps=times * unit)
            assert finding.message.startswith(f'timestamps are {name}'), (period, first)


@pytest.mark.parametrize('yaw', [0.0, 45.0, 90.0, 170.0, -100.0])
@pytest.mark.parametrize(
    ('yaw_rate', 'speed', 'period'),
    [(0, 10, 0.5), (30, 5, 0.5), (-45, 4, 0.5), (10, -2, 0.5), (0, 0, 0.5), (20, 0, 0.5), (1, 45, 2.0), (5, 20, 0.01)],
)
def test_nothing_is_found_in_drives_of_any_kind(yaw, yaw_rate, speed, period):
    poses = drive(yaw, yaw_rate, speed, period=period)
    assert faults_of(poses, seconds(period=period)) == []
    noisy = poses + np.random.default_rng(0).normal(0, (0.03, 0.03, 0.003), poses.shape)
    assert faults_of(noisy, seconds(period=period)) == []


def test_poses_of_the_front_of_a_vehicle_are_left_alone():
    """The front bumper, 3.7 m before the rear axle, moves sideways in a turn."""
    poses = drive(20, 20, 5)
    poses[:, :2] += 3.7 * np.column_stack([np.cos(poses[:, 2]), np.sin(poses[:, 2])])
    assert faults_of(poses, seconds()) == []


@pytest.mark.parametrize('yaw', [0.0, 45.0, 90.0, 170.0, -100.0])
@pytest.mark.parametrize(('yaw_rate', 'speed'), [(4, 8), (-20, 5), (30, 4), (10, -3)])
def test_a_wrong_sign_of_the_yaw_is_named_in_every_turn(yaw, yaw_rate, speed):
    assert faults_of(drive(yaw, yaw_rate, speed) * [1, 1, -1], seconds()) == ['yaw_sign']


@pytest.mark.parametrize('yaw_rate', [0, 4, -20])
def test_a_heading_across_the_movement_is_that_of_a_sensor(yaw_rate):
    assert faults_of(drive(30, yaw_rate, 8) - [0, 0, np.pi / 2], seconds()) == ['camera_pose']


def test_poses_jump_with_and_without_times():
    poses = drive(0, 0, 10)
    poses[10:, 0] += 100
    [finding] = check_rig(RIG, poses=poses, timestamps=seconds())
    assert (finding.camera, finding.fault) == (None, 'pose_jump')
    assert 'at 210 m/s from frame 9 to frame 10' in finding.message
    assert faults_of(poses) == ['pose_jump']
    fast = drive(0, 0, 65)
    assert faults_of(fast, seconds()) == ['pose_jump']
    assert faults_of(drive(0, 0, 55), seconds()) == []


def test_jumps_are_judged_by_times_in_the_right_unit():
    poses = drive(0, 0, 10)
    poses[10:, 0] += 100
    assert faults_of(poses, seconds() * 1e6) == ['timestamp_unit', 'pose_jump']


def test_time_has_to_go_on():
    times = seconds()
    times[7] = times[5]
    [finding] = check_rig(RIG, timestamps=times)
    assert finding.fault == 'time_order'
    assert finding.message.startswith('the timestamp of frame 7 is 0.500 s before')


def test_one_frame_is_enough():
    assert faults_of([np.eye(4)], [0.0]) == []
    assert faults_of([np.eye(4)], [1.7e15]) == ['timestamp_unit']
