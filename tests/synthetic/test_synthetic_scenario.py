"""What happens in the synthetic scenes and what the sensors see of it."""

import dataclasses

import cv2
import numpy as np
import pytest

from bevformer_plugin.synthetic import build_scenario
from bevformer_plugin.synthetic.lidar import count_points, scan
from bevformer_plugin.synthetic.motion import Actor, Track, constant_profile
from bevformer_plugin.synthetic.objects import KINDS, attribute, sample_size
from bevformer_plugin.synthetic.placement import rectangles_touch
from bevformer_plugin.synthetic.rendering import SceneRenderer
from bevformer_plugin.synthetic.rig import ego_to_global
from bevformer_plugin.synthetic.scenario import camera_timestamps
from bevformer_plugin.synthetic.shapes import build_model

SIZE = (400, 224)


@pytest.fixture(scope='module')
def empty_street():
    """A straight street without anybody on it, in flat light that casts no shadows."""
    scenario = build_scenario('scene-0061', 5, 2, 0, SIZE)
    light = dataclasses.replace(scenario.light, shadow=0.0)
    return dataclasses.replace(scenario, actors=[], light=light)


@pytest.fixture(scope='module')
def bare_image(empty_street):
    time = camera_timestamps(empty_street.keyframes[0])['CAM_FRONT']
    return SceneRenderer(empty_street, SIZE, 0).render('CAM_FRONT', time, np.random.default_rng(0))[0]


def _with(scenario, *placed):
    """Put (name, forward, left, yaw) in front of where the ego vehicle is at the front camera's first image."""
    time = camera_timestamps(scenario.keyframes[0])['CAM_FRONT']
    ego = ego_to_global(scenario.ego_poses([time])[0])
    heading = scenario.ego_poses([time])[0, 2]
    rng, actors = np.random.default_rng(1), []
    for name, forward, left, yaw in placed:
        x, y = (ego @ (forward, left, 0, 1))[:2]
        size = sample_size(name, rng)
        actors.append(Actor(name, KINDS[name].category, size, (float(x), float(y), float(heading + yaw)), 7))
    return dataclasses.replace(scenario, actors=actors), time


@pytest.mark.parametrize('name', KINDS)
def test_models_fill_their_boxes(name):
    rng = np.random.default_rng(0)
    for rider in (False, True) if name in ('bicycle', 'motorcycle') else (False,):
        for _ in range(4):
            length, width, height = size = sample_size(name, rng, rider)
            model = build_model(name, size, rng, rider=rider)
            corners = model.corners.reshape(-1, 3)
            np.testing.assert_allclose(corners.max(axis=0), (length / 2, width / 2, height), atol=0.011)
            np.testing.assert_allclose(corners.min(axis=0), (-length / 2, -width / 2, 0), atol=0.07)


@pytest.mark.parametrize('name', ['bus', 'truck', 'car', 'barrier', 'pedestrian', 'traffic_cone'])
@pytest.mark.parametrize('forward, left, yaw', [(14.0, -2.0, 2.0), (33.0, 3.5, -1.2)])
def test_drawn_objects_fit_their_projected_boxes(empty_street, bare_image, name, forward, left, yaw):
    scenario, time = _with(empty_street, (name, forward, left, yaw))
    sensor, actor = scenario.rig['CAM_FRONT'], scenario.actors[0]
    drawn, _ = SceneRenderer(scenario, SIZE, 0).render('CAM_FRONT', time, np.random.default_rng(0))
    differs = (np.abs(drawn.astype(int) - bare_image) > 12).any(axis=2).astype(np.uint8)
    rows, columns = (np.flatnonzero(differs.any(axis=axis)) for axis in (1, 0))
    silhouette = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])

    to_camera = np.linalg.inv(ego_to_global(scenario.ego_poses([time])[0]) @ sensor.to_ego)
    x, y, yaw = actor.motion
    local = actor.model.corners.reshape(-1, 3)

    def extent(points):
        points = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ ego_to_global((x, y, yaw)).T
        pixels = (points @ to_camera.T)[:, :3] @ sensor.intrinsic.T
        pixels = pixels[:, :2] / pixels[:, 2:]
        return np.concatenate([pixels.min(axis=0), pixels.max(axis=0)])

    np.testing.assert_allclose(silhouette, extent(local), atol=1.2)
    half = np.array(actor.size) / 2
    box = np.array([[a, b, c] for a in (-1, 1) for b in (-1, 1) for c in (0, 2)]) * half
    assert (silhouette[:2] > extent(box)[:2] - 1.2).all() and (silhouette[2:] < extent(box)[2:] + 1.2).all()
    if name == 'bus':
        np.testing.assert_allclose(silhouette[:3], extent(box)[:3], atol=1.2)  # it stands on wheels


def test_an_occluded_object_gets_no_points_and_no_pixels(empty_street):
    hidden = ('pedestrian', 24.0, 0.0, 0.0)
    for placed, visible in (((hidden,), True), ((hidden, ('bus', 15.0, 0.0, np.pi / 2)), False)):
        scenario, time = _with(empty_street, *placed)
        points = scan(scenario, time, np.random.default_rng(0))
        assert (count_points(points, scenario, time, [0])[0] > 0) == visible
        _, pixels = SceneRenderer(scenario, SIZE, 0).render('CAM_FRONT', time, np.random.default_rng(0))
        assert (pixels[0][0] > 0.9 * pixels[0][1]) == visible
        assert visible or pixels[0][0] == 0


def test_nearer_objects_are_drawn_over_farther_ones(empty_street):
    for forward in (12.0, 30.0):  # a red and white barrier before and behind a car that stands at 20 m
        scenario, time = _with(empty_street, ('car', 20.0, 0.0, 0.0), ('barrier', forward, 0.0, np.pi))
        _, pixels = SceneRenderer(scenario, SIZE, 0).render('CAM_FRONT', time, np.random.default_rng(0))
        fractions = [pixels[k][0] / pixels[k][1] for k in (0, 1)]
        assert (fractions[1] > 0.9) == (forward < 20)
        assert (fractions[0] > 0.9) == (forward > 20)


def test_front_and_rear_look_different(empty_street):
    faces = []
    for yaw in (0.0, np.pi):
        scenario, time = _with(empty_street, ('car', 12.0, 0.0, yaw))
        image, _ = SceneRenderer(scenario, SIZE, 0).render('CAM_FRONT', time, np.random.default_rng(0))
        hue = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
        red = (hue[..., 0] < 8) | (hue[..., 0] > 172)
        faces.append(int((red & (hue[..., 1] > 150) & (hue[..., 2] > 120)).sum()))
    assert faces[0] > 60 > 5 * faces[1]  # tail-lights


def test_ground_texture_stays_in_place(empty_street):
    """A white marking keeps its place on the ground while the ego vehicle drives."""
    road, renderer = empty_street.road, SceneRenderer(empty_street, SIZE, 0)
    edge = -road.section.lane_edge
    sensor = empty_street.rig['CAM_FRONT']
    for seconds in (0.0, 0.3, 0.7):
        time = empty_street.start + int(seconds * 1e6)
        image, _ = renderer.render('CAM_FRONT', time, np.random.default_rng(0))
        pose = empty_street.ego_poses([time])[0]
        along = empty_street.ego.profile.distance(seconds) + 9.0
        if road.near_side_street(along, 6.0):
            continue
        to_camera = np.linalg.inv(ego_to_global(pose) @ sensor.to_ego)
        brightness = []
        for offset in (edge - 0.5, edge, edge + 0.5):
            x, y, _ = road.poses(along, offset)
            pixel = sensor.intrinsic @ (to_camera @ (x, y, 0, 1))[:3]
            column, row = (pixel[:2] / pixel[2]).astype(int)
            brightness.append(int(image[row, column].sum()))
        assert brightness[1] > brightness[0] + 120 and brightness[1] > brightness[2] + 120


@pytest.mark.parametrize('index', range(6))
def test_nobody_touches_anybody(index):
    scenario = build_scenario('scene-0061', index, 12, 1, SIZE)
    half = np.array([actor.size[:2] for actor in scenario.actors]) / 2
    first, second = np.triu_indices(len(half), k=1)
    for keyframe in scenario.keyframes:
        poses = scenario.actor_poses(keyframe)
        assert not rectangles_touch(poses[first], half[first], poses[second], half[second]).any()
    for actor in scenario.actors:
        if actor.moves:
            assert 0 <= actor.speeds(scenario.road, scenario.seconds(scenario.keyframes)).max() <= 14


def test_actor_poses_follow_their_motions():
    scenario = build_scenario('scene-0061', 1, 4, 2, SIZE)
    time = scenario.keyframes[2]
    expected = np.concatenate([actor.poses(scenario.road, [scenario.seconds(time)]) for actor in scenario.actors])
    np.testing.assert_allclose(scenario.actor_poses(time), expected, atol=1e-9)


def test_a_track_moves_with_its_speed():
    road = build_scenario('scene-0061', 1, 4, 2, SIZE).road
    track = Track(constant_profile(5.0, 4.0), 10.0, -1.75, -1)
    ahead, later = track.poses(road, [1.0, 1.1])
    np.testing.assert_allclose(later[:2] - ahead[:2], 0.4 * np.array([np.cos(ahead[2]), np.sin(ahead[2])]), atol=0.03)


def test_attributes_follow_motion():
    assert attribute('car', 5.0, False, False) == 'vehicle.moving'
    assert attribute('bus', 0.0, False, False) == 'vehicle.stopped'
    assert attribute('truck', 0.0, True, False) == 'vehicle.parked'
    assert attribute('bicycle', 3.0, False, True) == 'cycle.with_rider'
    assert attribute('motorcycle', 0.0, False, False) == 'cycle.without_rider'
    assert attribute('pedestrian', 1.0, False, False) == 'pedestrian.moving'
    assert attribute('traffic_cone', 0.0, False, False) == ''
