"""The synthetic world as the unmodified devkit sees it."""

import hashlib
import json
import os
import signal

import cv2
import numpy as np
import pytest
from nuscenes.can_bus.can_bus_api import NuScenesCanBus
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.common.loaders import load_gt
from nuscenes.eval.detection.data_classes import DetectionBox
from nuscenes.eval.detection.evaluate import DetectionEval
from nuscenes.utils.data_classes import LidarPointCloud
from nuscenes.utils.geometry_utils import points_in_box
from nuscenes.utils.splits import mini_train, mini_val
from pyquaternion import Quaternion

from bevformer_plugin.synthetic import build_scenario, create_synthetic_world
from bevformer_plugin.synthetic.objects import KINDS
from bevformer_plugin.synthetic.tables import token

CAMERAS = ('CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_BACK_RIGHT', 'CAM_BACK', 'CAM_BACK_LEFT', 'CAM_FRONT_LEFT')
WORLD = {'scenes_train': 1, 'scenes_val': 1, 'frames': 2, 'seed': 3, 'image_size': (96, 54)}


def test_scenes_come_from_the_devkits_splits(tables):
    assert [scene['name'] for scene in tables.scene] == [*mini_train[:2], *mini_val[:2]]
    assert [scene['nbr_samples'] for scene in tables.scene] == [6] * 4
    assert len(tables.sample) == 24 and len(tables.sample_data) == len(tables.ego_pose) == 24 * 7


def test_samples_and_sensor_data_are_chained(tables):
    for scene in tables.scene:
        sample, seen = tables.get('sample', scene['first_sample_token']), []
        while True:
            seen.append(sample)
            assert set(sample['data']) == {*CAMERAS, 'LIDAR_TOP'}
            if not sample['next']:
                break
            following = tables.get('sample', sample['next'])
            assert following['prev'] == sample['token']
            assert 0.45e6 < following['timestamp'] - sample['timestamp'] < 0.55e6
            for channel, record in sample['data'].items():
                assert tables.get('sample_data', record)['next'] == following['data'][channel]
                assert tables.get('sample_data', following['data'][channel])['prev'] == record
            sample = following
        assert len(seen) == 6 and sample['token'] == scene['last_sample_token']


def test_instances_are_chained_without_gaps(tables):
    order = {sample['token']: k for k, sample in enumerate(tables.sample)}
    for instance in tables.instance:
        annotation, frames = tables.get('sample_annotation', instance['first_annotation_token']), []
        assert annotation['prev'] == ''
        while True:
            assert annotation['instance_token'] == instance['token']
            frames.append(order[annotation['sample_token']])
            if not annotation['next']:
                break
            annotation = tables.get('sample_annotation', annotation['next'])
        assert annotation['token'] == instance['last_annotation_token']
        assert frames == list(range(frames[0], frames[0] + instance['nbr_annotations']))
    assert sum(instance['nbr_annotations'] for instance in tables.instance) == len(tables.sample_annotation)


def test_files_exist_and_images_have_their_size(tables, synthetic_root):
    for record in tables.sample_data:
        path = synthetic_root / record['filename']
        assert path.is_file()
        if record['fileformat'] == 'jpg':
            assert cv2.imread(str(path)).shape == (record['height'], record['width'], 3) == (112, 200, 3)
        sample = tables.get('sample', record['sample_token'])
        assert abs(record['timestamp'] - sample['timestamp']) <= 50_000
        assert tables.get('ego_pose', record['ego_pose_token'])['timestamp'] == record['timestamp']


def test_calibration_resembles_nuscenes(tables):
    yaws = dict(zip(CAMERAS, (0, -55, -110, 180, 110, 55), strict=True))
    for record in tables.calibrated_sensor:
        channel = tables.get('sensor', record['sensor_token'])['channel']
        if channel not in yaws:
            continue
        forward = Quaternion(record['rotation']).rotation_matrix[:, 2]
        off = np.rad2deg(np.arctan2(forward[1], forward[0])) - yaws[channel]
        assert abs((off + 180) % 360 - 180) < 2 and abs(forward[2]) < 0.02
        focal = record['camera_intrinsic'][0][0] * 1600 / 200
        assert focal == pytest.approx(809 if channel == 'CAM_BACK' else 1264, rel=0.03)
        assert 1.45 < record['translation'][2] < 1.62


def test_ego_vehicle_drives_on_the_map(tables):
    for scene in tables.scene:
        sample = tables.get('sample', scene['first_sample_token'])
        pose = tables.get('ego_pose', sample['data']['LIDAR_TOP'])['translation']
        mask = tables.get('map', tables.get('log', scene['log_token'])['map_token'])['mask']
        assert mask.is_on_mask(pose[0], pose[1]).all()
        assert not mask.is_on_mask(1.0, 1.0).all() or not mask.is_on_mask(1.0, 30.0).all()


def test_can_bus_poses_interpolate_to_the_ego_poses(tables, synthetic_root):
    can_bus = NuScenesCanBus(str(synthetic_root))
    for scene in tables.scene:
        messages = can_bus.get_messages(scene['name'], 'pose')
        times = np.array([message['utime'] for message in messages])
        positions = np.array([message['pos'] for message in messages])
        assert set(messages[0]) == {'accel', 'orientation', 'pos', 'rotation_rate', 'utime', 'vel'}
        speeds = np.linalg.norm(np.diff(positions, axis=0), axis=1) / (np.diff(times) * 1e-6)
        assert np.abs(speeds - np.array([message['vel'][0] for message in messages])[1:]).max() < 0.15
        samples = {sample['token'] for sample in tables.sample if sample['scene_token'] == scene['token']}
        for record in tables.sample_data:
            if record['sample_token'] in samples:
                pose, time = tables.get('ego_pose', record['ego_pose_token']), record['timestamp']
                assert times[0] < time < times[-1]
                between = [np.interp(time, times, positions[:, k]) for k in range(3)]
                np.testing.assert_allclose(between, pose['translation'], atol=0.01)
                nearest = messages[int(np.abs(times - time).argmin())]['orientation']
                assert Quaternion.distance(Quaternion(nearest), Quaternion(pose['rotation'])) < 0.02


def test_velocities_and_attributes_agree_with_the_scenario(tables):
    attributes = {record['token']: record['name'] for record in tables.attribute}
    moving = 0
    for index, scene in enumerate(tables.scene):
        scenario = build_scenario(scene['name'], index, 6, 0, (200, 112))
        actors = {token(scene['token'], 'instance', k): actor for k, actor in enumerate(scenario.actors)}
        for annotation in tables.sample_annotation:
            actor = actors.get(annotation['instance_token'])
            if actor is None or (not annotation['prev'] and not annotation['next']):
                continue
            seconds = scenario.seconds(tables.get('sample', annotation['sample_token'])['timestamp'])
            x, y, yaw = actor.poses(scenario.road, [seconds])[0]
            speed = actor.speeds(scenario.road, [seconds])[0]
            np.testing.assert_allclose(annotation['translation'][:2], (x, y), atol=1e-3)
            assert annotation['translation'][2] == pytest.approx(annotation['size'][2] / 2)
            velocity = tables.box_velocity(annotation['token'])[:2]
            # One-sided differences at a track's ends lag a braking or turning vehicle.
            np.testing.assert_allclose(velocity, speed * np.array([np.cos(yaw), np.sin(yaw)]), atol=1.5)
            if annotation['prev'] and annotation['next']:
                np.testing.assert_allclose(velocity, speed * np.array([np.cos(yaw), np.sin(yaw)]), atol=0.4)
            names = [attributes[key] for key in annotation['attribute_tokens']]
            if KINDS[actor.name].group in ('vehicle', 'pedestrian'):
                assert names[0].endswith('.moving') == (speed > 0.3)
            moving += speed > 0.3
    assert moving > 100


def test_lidar_points_are_counted_as_the_devkit_counts_them(tables, synthetic_root):
    counts = []
    for sample in tables.sample[::7]:
        path, boxes, _ = tables.get_sample_data(sample['data']['LIDAR_TOP'])
        points = LidarPointCloud.from_file(path).points[:3]
        assert 2000 < points.shape[1] < 16000
        for box in boxes:
            stated = tables.get('sample_annotation', box.token)['num_lidar_pts']
            counts.append((stated, int(points_in_box(box, points).sum())))
    counts = np.array(counts)
    # Sizes and positions are rounded to a millimetre in the tables: a point on the edge may change sides.
    assert np.abs(counts[:, 0] - counts[:, 1]).max() <= 1
    assert (counts[:, 0] == counts[:, 1]).mean() > 0.99
    assert 0.1 < (counts[:, 0] == 0).mean() < 0.5


def test_every_class_is_there(tables):
    names = [annotation['category_name'] for annotation in tables.sample_annotation if annotation['num_lidar_pts']]
    for kind in KINDS.values():
        assert names.count(kind.category) >= 20
    assert 18 < len(names) / len(tables.sample) < 45
    visibility = [annotation['visibility_token'] for annotation in tables.sample_annotation]
    assert set(visibility) == {'1', '2', '3', '4'}


def test_ground_truth_as_predictions_is_perfect(tables, tmp_path):
    boxes = load_gt(tables, 'mini_val', DetectionBox)
    results = {}
    for sample in boxes.sample_tokens:
        results[sample] = [
            {**box.serialize(), 'detection_score': 1.0, 'velocity': np.nan_to_num(box.velocity).tolist()}
            for box in boxes[sample]
            if box.num_pts
        ]
        for record in results[sample]:
            for key in ('ego_translation', 'num_pts'):
                record.pop(key)
    meta = dict.fromkeys(('use_lidar', 'use_radar', 'use_map', 'use_external'), False) | {'use_camera': True}
    path = tmp_path / 'results.json'
    path.write_text(json.dumps({'meta': meta, 'results': results}))
    evaluation = DetectionEval(
        tables, config_factory('detection_cvpr_2019'), str(path), 'mini_val', str(tmp_path), verbose=False
    )
    metrics, _ = evaluation.evaluate()
    assert metrics.mean_ap == pytest.approx(1.0)
    assert metrics.nd_score > 0.99


def _hashes(root):
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob('*'))
        if path.is_file()
    }


def test_same_seed_same_bytes_for_any_number_of_workers(tmp_path):
    for name, changes in (('one', {'workers': 1}), ('two', {'workers': 2}), ('other', {'workers': 1, 'seed': 4})):
        create_synthetic_world(tmp_path / name, **{**WORLD, **changes})
    one, two, other = (_hashes(tmp_path / name) for name in ('one', 'two', 'other'))
    assert len(one) == 2 * 2 * 7 + 2 * 3 + 13  # of each scene CAN bus, map mask and map expansion
    assert one == two
    assert one != other and len(one) == len(other)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['one', 'other', 'two']


@pytest.mark.parametrize(
    'changes, message',
    [
        ({'scenes_train': 9}, 'mini_train, which holds 8 .* v1.0-trainval'),
        ({'scenes_val': 3}, 'mini_val, which holds 2 .* v1.0-trainval'),
        ({'scenes_train': 701, 'version': 'v1.0-trainval'}, 'which holds 700'),
        ({'scenes_val': 0}, 'at least 1 scene'),
        ({'version': 'v1.0-test'}, 'version must be one of'),
        ({'frames': 1}, 'frames must be'),
        ({'seed': -1}, 'seed must be'),
        ({'image_size': (20, 10)}, 'image_size must be'),
        ({'image_size': (200, 200)}, 'times as wide as high'),
        ({'workers': 0}, 'workers must be'),
    ],
)
def test_bad_arguments_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        create_synthetic_world(tmp_path / 'world', **{**WORLD, **changes})
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_kept_unless_told_otherwise(tmp_path):
    out = tmp_path / 'world'
    out.mkdir()
    (out / 'precious.txt').write_text('mine')
    with pytest.raises(FileExistsError, match='--overwrite'):
        create_synthetic_world(out, **WORLD)
    assert [path.name for path in out.iterdir()] == ['precious.txt']
    create_synthetic_world(out, **WORLD, overwrite=True)
    assert sorted(path.name for path in out.iterdir()) == ['can_bus', 'maps', 'samples', 'v1.0-mini']
    assert [path.name for path in tmp_path.iterdir()] == ['world']


@pytest.mark.parametrize('workers', [1, 2])
def test_an_interrupted_run_leaves_nothing(tmp_path, workers):
    def interrupt(signum, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    begin = sum(os.times()[:4])
    signal.setitimer(signal.ITIMER_REAL, 0.8)
    try:
        with pytest.raises(KeyboardInterrupt):
            create_synthetic_world(
                tmp_path / 'world',
                **{**WORLD, 'scenes_train': 8, 'frames': 100, 'image_size': (320, 180)},
                workers=workers,
            )
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not list(tmp_path.iterdir())
    # Seconds of this process and its workers on a processor, which a busy machine does not add to, of the two minutes
    # that the whole world takes.
    assert sum(os.times()[:4]) - begin < 30
