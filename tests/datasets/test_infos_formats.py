"""Files of the published BEVFormer and of mmdetection3d 1.4, written here from the tables and read as ours."""

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
from nuscenes.eval.detection.utils import category_to_detection_name
from nuscenes.utils.geometry_utils import transform_matrix
from pyquaternion import Quaternion

from bevformer_plugin.datasets.infos import CATEGORIES, convert_infos, create_nuscenes_infos, load_infos
from tests.helpers.info_files import write_infos

VERSION = 'v1.0-mini'


@pytest.fixture(scope='module')
def direct(synthetic_root, tmp_path_factory):
    """Our own infos of the same samples, with the CAN-bus message after the sample."""
    files = create_nuscenes_infos(
        synthetic_root, VERSION, tmp_path_factory.mktemp('direct'), workers=1, can_bus_message='official_v1'
    )
    return load_infos(files['mini_val'])


def published_infos(tables, direct, old_boxes=True):
    """The samples of ``direct`` as the published code writes them: quaternions, microseconds, other boxes."""
    infos = []
    for entry in direct['data_list']:
        sample = tables.get('sample', entry['token'])
        record, mount, pose = _sensor(tables, sample['data']['LIDAR_TOP'])
        boxes = tables.get_sample_data(record['token'])[1]
        annotations = [tables.get('sample_annotation', box.token) for box in boxes]
        rows = [
            [*box.center, *box.wlh, -box.orientation.yaw_pitch_roll[0] - math.pi / 2]
            if old_boxes
            else [*box.center, *box.wlh[[1, 0, 2]], box.orientation.yaw_pitch_roll[0]]
            for box in boxes
        ]
        to_lidar = np.linalg.inv(_matrix(pose)[:3, :3] @ _matrix(mount)[:3, :3])
        velocities = [(to_lidar @ [*tables.box_velocity(box.token)[:2], 0])[:2] for box in boxes]
        lidar_points, radar_points = (
            np.array([row[key] for row in annotations]) for key in ('num_lidar_pts', 'num_radar_pts')
        )
        infos.append(
            {
                'lidar_path': f'./data/nuscenes/{record["filename"]}',
                'token': sample['token'],
                'prev': sample['prev'],
                'next': sample['next'],
                'frame_idx': entry['frame_idx'],
                'sweeps': [],
                'scene_token': sample['scene_token'],
                'can_bus': np.array([1.0] * 7 + entry['can_bus'][7:16] + [0, 0]),
                'timestamp': sample['timestamp'],
                'lidar2ego_translation': mount['translation'],
                'lidar2ego_rotation': mount['rotation'],
                'ego2global_translation': pose['translation'],
                'ego2global_rotation': pose['rotation'],
                'cams': {
                    name: _published_camera(tables, sample['data'][name], _matrix(pose) @ _matrix(mount))
                    for name in sorted(entry['images'])
                },
                'gt_boxes': np.array(rows).reshape(-1, 7),
                'gt_names': np.array([category_to_detection_name(box.name) or box.name for box in boxes]),
                'gt_velocity': np.array(velocities).reshape(-1, 2),
                'num_lidar_pts': lidar_points,
                'num_radar_pts': radar_points,
                'valid_flag': lidar_points + radar_points > 0,
            }
        )
    return {'infos': infos[::-1], 'metadata': {'version': VERSION}}


def _published_camera(tables, token, lidar2global):
    record, mount, pose = _sensor(tables, token)
    cam2lidar = np.linalg.inv(lidar2global) @ _matrix(pose) @ _matrix(mount)
    return {
        'data_path': f'./data/nuscenes/{record["filename"]}',
        'type': record['channel'],
        'sample_data_token': token,
        'sensor2ego_translation': mount['translation'],
        'sensor2ego_rotation': mount['rotation'],
        'ego2global_translation': pose['translation'],
        'ego2global_rotation': pose['rotation'],
        'timestamp': record['timestamp'],
        'sensor2lidar_rotation': cam2lidar[:3, :3],
        'sensor2lidar_translation': cam2lidar[:3, 3],
        'cam_intrinsic': np.array(mount['camera_intrinsic']),
    }


def stock_infos(tables, direct):
    """The samples of ``direct`` as mmdetection3d 1.4 writes them: float32 matrices, every annotation, bare names."""
    data_list = []
    for index, entry in enumerate(direct['data_list']):
        sample = tables.get('sample', entry['token'])
        ours = {instance['instance_token']: instance for instance in entry['instances']}
        instances = []
        for token in sample['anns']:
            instance = ours.get(tables.get('sample_annotation', token)['instance_token'])
            other = {
                'bbox_label': -1,
                'bbox_label_3d': -1,
                'bbox_3d': [0.0] * 7,
                'bbox_3d_isvalid': True,
                'velocity': [0.0, 0.0],
                'num_lidar_pts': 1,
                'num_radar_pts': 0,
            }
            instances.append(other if instance is None else {key: instance[key] for key in other})
        images = {
            name: {
                'img_path': Path(camera['img_path']).name,
                'cam2img': camera['cam2img'],
                'lidar2cam': np.float32(camera['lidar2cam']).tolist(),
                'sample_data_token': camera['sample_data_token'],
                'timestamp': camera['timestamp'],
            }
            for name, camera in entry['images'].items()
        }
        data_list.append(
            {
                'sample_idx': index,
                'token': entry['token'],
                'timestamp': entry['timestamp'],
                'images': images,
                'instances': instances,
                'ego2global': np.float32(entry['ego2global']).tolist(),
                'lidar_points': {'lidar_path': Path(entry['lidar_points']['lidar_path']).name, 'num_pts_feats': 5},
            }
        )
    return {
        'metainfo': {'categories': CATEGORIES, 'dataset': 'nuscenes', 'version': VERSION, 'info_version': '1.1'},
        'data_list': data_list,
    }


def _sensor(tables, token):
    record = tables.get('sample_data', token)
    return (
        record,
        tables.get('calibrated_sensor', record['calibrated_sensor_token']),
        tables.get('ego_pose', record['ego_pose_token']),
    )


def _matrix(row):
    return transform_matrix(row['translation'], Quaternion(row['rotation']))


def assert_equal(actual, expected, ignore=()):
    """Same keys in the same nesting, numbers equal to 1e-7, NaN equal to NaN, everything else equal."""
    if isinstance(expected, dict):
        assert actual.keys() == expected.keys()
        for key in expected.keys() - set(ignore):
            assert_equal(actual[key], expected[key], ignore)
    elif isinstance(expected, list) and expected and isinstance(expected[0], dict):
        assert len(actual) == len(expected)
        for one, other in zip(actual, expected, strict=True):
            assert_equal(one, other, ignore)
    elif isinstance(expected, list) and expected and isinstance(expected[0], str):
        assert actual == expected
    elif isinstance(expected, (list, float)):
        np.testing.assert_allclose(actual, expected, atol=1e-7)
    else:
        assert actual == expected


@pytest.mark.parametrize('old_boxes', [True, False])
def test_published_file_equals_ours(tables, direct, synthetic_root, tmp_path, old_boxes):
    path = write_infos(tmp_path / 'old.pkl', published_infos(tables, direct, old_boxes))
    infos = load_infos(path, synthetic_root, VERSION)
    assert_equal(infos, direct, ignore=('visibility', 'instance_token', 'attribute'))
    assert [list(entry['images']) for entry in infos['data_list']] == [
        list(entry['images']) for entry in direct['data_list']
    ]
    assert {instance['attribute'] for entry in infos['data_list'] for instance in entry['instances']} == {''}


def test_published_file_without_a_root(tables, direct, tmp_path):
    content = published_infos(tables, direct)
    path = write_infos(tmp_path / 'old.pkl', content)
    with pytest.raises(ValueError, match=r'size of the images of CAM_\w+ is not known.*--root'):
        load_infos(path)  # the principal point is that of a 200 x 112 image
    for info in content['infos']:
        for camera in info['cams'].values():
            camera['cam_intrinsic'] = np.diag([8.0, 8.0, 1.0]) @ camera['cam_intrinsic']
    infos = load_infos(write_infos(path, content))
    assert infos['metainfo']['split'] is None
    entry = infos['data_list'][0]
    assert entry['scene_name'] == entry['scene_token'] == direct['data_list'][0]['scene_token']
    assert (entry['images']['CAM_BACK']['height'], entry['images']['CAM_BACK']['width']) == (900, 1600)


def test_stock_file_equals_ours(tables, direct, synthetic_root, tmp_path):
    """Everything but the boxes comes from the tables in float64; the CAN-bus message is then the nearest one."""
    path = write_infos(tmp_path / 'stock.pkl', stock_infos(tables, direct))
    infos = load_infos(path, synthetic_root, VERSION)
    assert infos['metainfo'] == {**direct['metainfo'], 'can_bus': 'nearest'}
    assert_equal(infos['data_list'], direct['data_list'], ignore=('can_bus',))
    for entry, other in zip(infos['data_list'], direct['data_list'], strict=True):
        assert entry['can_bus'][:7] + entry['can_bus'][16:] == other['can_bus'][:7] + other['can_bus'][16:]
        assert any(entry['can_bus'][7:16])


def test_stock_file_with_another_class_order(tables, direct, synthetic_root, tmp_path):
    """Classes are mapped by name."""
    content = stock_infos(tables, direct)
    names = list(CATEGORIES)[::-1]
    content['metainfo']['categories'] = {name: index for index, name in enumerate(names)}
    for entry in content['data_list']:
        for instance in entry['instances']:
            if instance['bbox_label_3d'] >= 0:
                instance['bbox_label_3d'] = len(names) - 1 - instance['bbox_label_3d']
    infos = load_infos(write_infos(tmp_path / 'stock.pkl', content), synthetic_root)
    assert_equal(infos['data_list'], direct['data_list'], ignore=('can_bus',))


def test_converted_file_is_ours(tables, direct, synthetic_root, tmp_path):
    path = write_infos(tmp_path / 'old.pkl', published_infos(tables, direct))
    out = convert_infos(path, tmp_path / 'new' / 'infos.pkl', synthetic_root, VERSION)
    assert_equal(load_infos(out), direct, ignore=('visibility', 'instance_token', 'attribute'))
    with pytest.raises(FileExistsError, match='--overwrite'):
        convert_infos(path, out)


def test_stock_file_needs_matching_tables(tables, direct, synthetic_root, tmp_path):
    content = stock_infos(tables, direct)
    path = write_infos(tmp_path / 'stock.pkl', content)
    with pytest.raises(ValueError, match='give the nuScenes root'):
        load_infos(path)
    content['data_list'][0]['instances'].pop()
    with pytest.raises(ValueError, match=r'has \d+ instances but the tables have \d+'):
        load_infos(write_infos(path, content), synthetic_root)
    content['data_list'][0]['token'] = 'unknown'
    with pytest.raises(ValueError, match=r'sample unknown is not in the tables of v1\.0-mini'):
        load_infos(write_infos(path, content), synthetic_root)


def test_version_must_match(tables, direct, tmp_path):
    for content in (direct, published_infos(tables, direct), stock_infos(tables, direct)):
        with pytest.raises(ValueError, match=r'are of nuScenes v1\.0-mini, not v1\.0-trainval'):
            load_infos(write_infos(tmp_path / 'infos.pkl', content), version='v1.0-trainval')


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ([1, 2], 'found a list'),
        ({'meta': 1, 'results': {}}, 'found keys meta, results'),
        ({'infos': [], 'metadata': {'version': VERSION}}, 'holds no list of samples'),
        (
            {'infos': [{'token': 'a', 'cams': {}}], 'metadata': {'version': VERSION}},
            'not one of BEVFormer.*lack can_bus',
        ),
        ({'metainfo': {'dataset': 'kitti'}, 'data_list': [{}]}, 'info file of kitti, not of nuscenes'),
        (
            {
                'metainfo': {'dataset': 'nuscenes', 'info_kind': 'bevformer_temporal', 'info_version': '0.9'},
                'data_list': [{}],
            },
            'bevformer_temporal 0.9, not bevformer_temporal 1.2',
        ),
        (
            {'metainfo': {'dataset': 'nuscenes', 'version': VERSION}, 'data_list': [{'sample_idx': 0}]},
            'lack token or images',
        ),
    ],
)
def test_other_pickles_are_refused_with_the_remedy(content, message, tmp_path):
    with pytest.raises(ValueError, match=f'{message}.*create_data.py'):
        load_infos(write_infos(tmp_path / 'infos.pkl', content))


def test_unreadable_files(tmp_path):
    path = tmp_path / 'infos.pkl'
    with pytest.raises(FileNotFoundError, match=r'create_data\.py'):
        load_infos(path)
    path.write_bytes(pickle.dumps(list(range(1000)))[:500])
    with pytest.raises(ValueError, match='not a readable pickle'):
        load_infos(path)


def only(content, *names):
    """The published infos with boxes of these classes only."""
    for info in content['infos']:
        keep = np.isin(info['gt_names'], names)
        for key in ('gt_boxes', 'gt_names', 'gt_velocity', 'num_lidar_pts', 'num_radar_pts', 'valid_flag'):
            info[key] = info[key][keep]
    return content


@pytest.mark.parametrize('old_boxes', [True, False])
def test_barriers_tell_the_box_convention_as_vehicles_do(tables, direct, synthetic_root, tmp_path, old_boxes):
    content = only(published_infos(tables, direct, old_boxes), 'barrier', 'pedestrian')
    infos = load_infos(write_infos(tmp_path / 'old.pkl', content), synthetic_root)
    barriers = [
        [instance for instance in entry['instances'] if instance['bbox_label_3d'] == CATEGORIES['barrier']]
        for entry in direct['data_list']
    ]
    read = [
        [instance for instance in entry['instances'] if instance['bbox_label_3d'] == CATEGORIES['barrier']]
        for entry in infos['data_list']
    ]
    assert sum(map(len, barriers)) > 0
    for ours, theirs in zip(read, barriers, strict=True):
        assert_equal(ours, theirs, ignore=('visibility', 'instance_token', 'attribute'))


@pytest.mark.parametrize('convention', ['old', 'new'])
def test_a_file_that_does_not_tell_the_box_convention(tables, direct, synthetic_root, tmp_path, convention):
    content = only(published_infos(tables, direct, convention == 'old'), 'pedestrian', 'traffic_cone')
    path = write_infos(tmp_path / 'old.pkl', content)
    with pytest.raises(ValueError, match=r'not told by their classes.*--box-convention old.*or new'):
        load_infos(path, synthetic_root)
    infos = load_infos(path, synthetic_root, box_convention=convention)
    expected = [
        instance['bbox_3d']
        for entry in direct['data_list']
        for instance in entry['instances']
        if list(CATEGORIES)[instance['bbox_label_3d']] in ('pedestrian', 'traffic_cone')
    ]
    boxes = [instance['bbox_3d'] for entry in infos['data_list'] for instance in entry['instances']]
    assert len(boxes) > 20
    difference = np.subtract(boxes, expected)
    difference[:, 6] = np.arctan2(np.sin(difference[:, 6]), np.cos(difference[:, 6]))
    assert np.abs(difference).max() < 1e-6


def test_a_convention_without_effect_or_against_the_boxes(tables, direct, synthetic_root, tmp_path):
    path = write_infos(tmp_path / 'old.pkl', published_infos(tables, direct))
    with pytest.raises(ValueError, match='are in the old convention, not the new one'):
        load_infos(path, synthetic_root, box_convention='new')
    with pytest.raises(ValueError, match="one of old, new, not 'mmdet3d'"):
        load_infos(path, synthetic_root, box_convention='mmdet3d')
    with pytest.raises(ValueError, match=r'is no published file.*leave it out'):
        load_infos(write_infos(path, direct), synthetic_root, box_convention='old')


def test_published_infos_of_resized_images(tables, direct, synthetic_root, tmp_path):
    """The synthetic images are 200 x 112; the calibration of images twice as large does not belong to them."""
    content = published_infos(tables, direct)
    for info in content['infos']:
        for camera in info['cams'].values():
            camera['cam_intrinsic'] = np.diag([2.0, 2.0, 1.0]) @ camera['cam_intrinsic']
    with pytest.raises(ValueError, match=r'is 200 x 112 pixels, but the calibration of CAM_.* principal point'):
        load_infos(write_infos(tmp_path / 'old.pkl', content), synthetic_root)


def test_broken_published_infos(tables, direct, synthetic_root, tmp_path):
    for key, value, message in (
        ('ego2global_rotation', [1.0, 0.0, 0.0], 'cannot be read'),
        ('ego2global_translation', [float('nan'), 0.0, 0.0], 'ego2global is not finite'),
        ('can_bus', np.full(18, float('nan')), 'can_bus is not finite'),
        ('can_bus', np.zeros(12), 'not 18 numbers'),
        ('gt_boxes', np.zeros((1, 3)), 'cannot be read'),
        ('cams', {}, 'has no images'),
    ):
        content = published_infos(tables, direct)
        content['infos'][3][key] = value
        with pytest.raises(ValueError, match=f'sample {content["infos"][3]["token"]}.*{message}'):
            load_infos(write_infos(tmp_path / 'old.pkl', content), synthetic_root)
