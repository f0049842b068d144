"""Directions that the names of cameras tell."""

import pytest

from bevformer_plugin.deployment.rig_check.camera_names import direction_of


@pytest.mark.parametrize(
    ('name', 'yaw'),
    [
        ('CAM_FRONT', 0),
        ('ring_front_center', 0),
        ('forward', 0),
        ('CAM_BACK', 180),
        ('rearCamera', 180),
        ('CAM_FRONT_LEFT', 50),
        ('frontleft', 50),
        ('left-front', 50),
        ('cam_fl', 50),
        ('SIDE_LEFT', 90),
        ('RearRight', -130),
        ('RR', -130),
        ('side right', -90),
        ('stereo_front_left', 0),
    ],
)
def test_names_tell_directions(name, yaw):
    direction = direction_of(name)
    assert direction is not None and direction.yaw == yaw


@pytest.mark.parametrize('name', ['camera_1', 'image_02', 'front_back', 'stereo_left', 'flash', ''])
def test_names_that_tell_none(name):
    assert direction_of(name) is None
