"""Info files: every field against the devkit's own tables, what is left out, and bad input."""

import collections
import json
import math
import os
import pickle
import resource
import shutil

import numpy as np
import pytest
import torch
from nuscenes.eval.common.utils import quaternion_yaw
from nuscenes.utils.geometry_utils import view_points
from pyquaternion import Quaternion

from bevformer_plugin.atomic_write import atomic_write
from bevformer_plugin.datasets.infos import (
    CATEGORIES,
    create_nuscenes_infos,
    load_infos,
    require_matching,
)
from bevformer_plugin.datasets.infos.can_bus import WITHOUT_POSE
from bevformer_plugin.geometry import BEVGrid, bev_shift, planar_motion
from bevformer_plugin.models import BEVHistory, EgoAlignment, Frame
from tests.helpers.processes import run_tool

VERSION = 'v1.0-mini'


@pytest.fixture(scope='module')
def files(synthetic_root, tmp_path_factory):
    return create_nuscenes_infos(synthetic_root, VERSION, tmp_path_factory.mktemp('infos'))


@pytest.fixture(scope='module')
def infos(files):
    return load_infos(files['mini_train'])


def test_files_and_metainfo(files, infos):
    assert {split: path.name for split, path in files.items()} == {
        'mini_train': 'nuscenes_infos_temporal_train.pkl',
        'mini_val': 'nuscenes_infos_temporal_val.pkl',
    }
    assert infos['metainfo'] == {
        'dataset': 'nuscenes',
        'version': VERSION,
        'split': 'mini_train',
        'info_version': '1.2',
        'info_kind': 'bevformer_temporal',
        'categories': CATEGORIES,
        'can_bus': 'nearest',
        'scenes': ['scene-0061', 'scene-0553'],
        'frame': 'lidar',
    }


def test_order_and_chain(infos, tables):
    data_list = infos['data_list']
    scenes = collections.Counter(entry['scene_name'] for entry in data_list)
    assert sum(scenes.values()) == sum(row['nbr_samples'] for row in tables.scene if row['name'] in scenes)
    assert [entry['sample_idx'] for entry in data_list] == list(range(len(data_list)))
    assert [entry['frame_idx'] for entry in data_list] == [
        frame for count in scenes.values() for frame in range(count)
    ]
    for entry in data_list:
        sample = tables.get('sample', entry['token'])
        assert (entry['prev'], entry['next'], entry['scene_token']) == (
            sample['prev'],
            sample['next'],
            sample['scene_token'],
        )
        assert entry['timestamp'] == sample['timestamp'] / 1e6


def test_boxes_are_the_devkits(infos, tables):
    seen = 0
    for entry in infos['data_list']:
        lidar = tables.get('sample', entry['token'])['data']['LIDAR_TOP']
        boxes = {
            tables.get('sample_annotation', box.token)['instance_token']: box
            for box in tables.get_sample_data(lidar)[1]
        }
        for instance in entry['instances']:
            box = boxes[instance['instance_token']]
            width, length, height = box.wlh
            assert instance['bbox_3d'][:6] == [*box.center, length, width, height]
            assert math.remainder(
                instance['bbox_3d'][6] - quaternion_yaw(box.orientation), 2 * math.pi
            ) == pytest.approx(0, abs=1e-3)
            annotation = tables.get('sample_annotation', box.token)
            assert (
                list(CATEGORIES)[instance['bbox_label_3d']] in ('barrier', 'traffic_cone')
                or instance['attribute'] == tables.get('attribute', annotation['attribute_tokens'][0])['name']
            )
            assert instance['num_lidar_pts'] == annotation['num_lidar_pts']
            assert instance['bbox_3d_isvalid'] == (annotation['num_lidar_pts'] + annotation['num_radar_pts'] > 0)
            seen += 1
    assert seen > 50


def test_velocity_moves_a_box_to_its_next_place(infos, tables):
    """Box centre + velocity x time, carried to the global frame, is the devkit's global motion of the object."""
    moving = 0
    for entry in infos['data_list']:
        lidar2global = np.array(entry['ego2global']) @ np.array(entry['lidar_points']['lidar2ego'])
        annotations = {
            row['instance_token']: row['token']
            for row in (
                tables.get('sample_annotation', token) for token in tables.get('sample', entry['token'])['anns']
            )
        }
        for instance in entry['instances']:
            expected = tables.box_velocity(annotations[instance['instance_token']])[:2]
            actual = (lidar2global[:3, :3] @ [*instance['velocity'], 0.0])[:2]
            np.testing.assert_allclose(actual, expected, atol=2e-3 * max(1, np.nan_to_num(np.abs(expected)).max()))
            moving += np.abs(expected).max() > 1
    assert moving > 10


def test_projection_is_the_devkits(infos, tables):
    """Box centres through lidar2cam and cam2img land where the devkit's own camera boxes do."""
    for entry in infos['data_list'][::7]:
        sample = tables.get('sample', entry['token'])
        instances = {instance['instance_token']: instance for instance in entry['instances']}
        for name, camera in entry['images'].items():
            assert (camera['sample_data_token'], camera['img_path']) == (
                sample['data'][name],
                tables.get('sample_data', sample['data'][name])['filename'],
            )
            _, boxes, intrinsic = tables.get_sample_data(sample['data'][name])
            for box in boxes:
                instance = instances.get(tables.get('sample_annotation', box.token)['instance_token'])
                if instance is None:
                    continue
                point = np.array(camera['lidar2cam']) @ [*instance['bbox_3d'][:3], 1.0]
                np.testing.assert_allclose(point[:3], box.center, atol=1e-6)
                pixel = (np.array(camera['cam2img']) @ point[:3]) / point[2]
                np.testing.assert_allclose(pixel, view_points(box.center[:, None], intrinsic, True)[:, 0], rtol=1e-6)


def test_can_bus_pose_and_recorded_channels(infos, tables, synthetic_root):
    entry = infos['data_list'][3]
    sample = tables.get('sample', entry['token'])
    pose = tables.get('ego_pose', tables.get('sample_data', sample['data']['LIDAR_TOP'])['ego_pose_token'])
    assert entry['can_bus'][:7] == [*pose['translation'], *pose['rotation']]
    heading = quaternion_yaw(Quaternion(pose['rotation'])) % (2 * math.pi)
    assert entry['can_bus'][16:] == pytest.approx([heading, math.degrees(heading)])
    messages = json.loads((synthetic_root / 'can_bus' / f'{entry["scene_name"]}_pose.json').read_text())
    nearest = min(messages, key=lambda message: abs(message['utime'] - sample['timestamp']))
    assert entry['can_bus'][7:16] == [*nearest['accel'], *nearest['rotation_rate'], *nearest['vel']]


def test_official_v1_takes_the_message_after_the_sample(synthetic_root, tmp_path, tables):
    files = create_nuscenes_infos(synthetic_root, VERSION, tmp_path, workers=1, can_bus_message='official_v1')
    infos = load_infos(files['mini_val'])
    assert infos['metainfo']['can_bus'] == 'official_v1'
    entry = infos['data_list'][2]
    time = tables.get('sample', entry['token'])['timestamp']
    messages = json.loads((synthetic_root / 'can_bus' / f'{entry["scene_name"]}_pose.json').read_text())
    after = next(message for message in messages if message['utime'] > time)
    assert entry['can_bus'][7:16] == [*after['accel'], *after['rotation_rate'], *after['vel']]


def test_without_can_bus_the_recorded_channels_are_zero(copied_root, infos, capsys):
    (copied_root / 'can_bus').unlink()
    without = load_infos(create_nuscenes_infos(copied_root, VERSION, workers=1)['mini_train'])
    assert capsys.readouterr().out.count('No CAN-bus folder') == 1
    assert without['metainfo']['can_bus'] == 'none'
    for entry, other in zip(without['data_list'], infos['data_list'], strict=True):
        assert entry['can_bus'][7:16] == [0.0] * 9
        assert entry['can_bus'][:7] + entry['can_bus'][16:] == other['can_bus'][:7] + other['can_bus'][16:]


def test_result_does_not_depend_on_workers(synthetic_root, files, tmp_path):
    again = create_nuscenes_infos(synthetic_root, VERSION, tmp_path, workers=1)
    for split, path in files.items():
        assert pickle.dumps(_no_nan(load_infos(again[split]))) == pickle.dumps(_no_nan(load_infos(path)))


def _no_nan(infos):
    return json.loads(json.dumps(infos))


def test_missing_files_are_left_out_and_counted(copied_root, synthetic_root, tables, capsys):
    scene = next(row for row in tables.scene if row['name'] in ('scene-0103', 'scene-0916'))
    first = tables.get('sample', scene['first_sample_token'])
    second = tables.get('sample', first['next'])
    samples = copied_root / 'samples'
    samples.unlink()
    shutil.copytree(synthetic_root / 'samples', samples, copy_function=os.link)
    (copied_root / tables.get('sample_data', second['data']['CAM_BACK'])['filename']).unlink()
    (copied_root / tables.get('sample_data', first['data']['LIDAR_TOP'])['filename']).unlink()
    entries = load_infos(create_nuscenes_infos(copied_root, VERSION)['mini_val'])['data_list']
    entries = [entry for entry in entries if entry['scene_name'] == scene['name']]
    assert [entry['frame_idx'] for entry in entries] == [0, *range(2, scene['nbr_samples'])]
    assert entries[1]['prev'] == second['token']
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(scene['name']))
    count = scene['nbr_samples']
    assert row.split()[1:] == [str(count), str(count - 1), '1', '1', '0']


def test_existing_files_are_not_overwritten(synthetic_root, tmp_path):
    (tmp_path / 'nuscenes_infos_temporal_val.pkl').write_bytes(b'mine')
    with pytest.raises(FileExistsError, match='--overwrite'):
        create_nuscenes_infos(synthetic_root, VERSION, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ['nuscenes_infos_temporal_val.pkl']
    create_nuscenes_infos(synthetic_root, VERSION, tmp_path, workers=1, overwrite=True)
    assert load_infos(tmp_path / 'nuscenes_infos_temporal_val.pkl')['metainfo']['split'] == 'mini_val'


def test_bad_roots(synthetic_root, copied_root, tmp_path):
    with pytest.raises(FileNotFoundError, match='no nuScenes folder'):
        create_nuscenes_infos(tmp_path / 'absent', VERSION)
    with pytest.raises(FileNotFoundError, match=r'holds no v1\.0-trainval.*holds: v1\.0-mini'):
        create_nuscenes_infos(synthetic_root, 'v1.0-trainval')
    with pytest.raises(ValueError, match=r'unknown nuScenes version .mini.*v1\.0-mini'):
        create_nuscenes_infos(synthetic_root, 'mini')
    with pytest.raises(FileNotFoundError, match='no CAN-bus folder'):
        create_nuscenes_infos(synthetic_root, VERSION, can_bus_dir=tmp_path)
    (copied_root / VERSION / 'ego_pose.json').write_text('[{"token": ')
    with pytest.raises(ValueError, match='cannot be read'):
        create_nuscenes_infos(copied_root, VERSION)
    (copied_root / VERSION / 'ego_pose.json').unlink()
    with pytest.raises(FileNotFoundError, match=r'lacks ego_pose\.json'):
        create_nuscenes_infos(copied_root, VERSION)
    (copied_root / 'samples').unlink()
    shutil.copy(synthetic_root / VERSION / 'ego_pose.json', copied_root / VERSION)
    with pytest.raises(FileNotFoundError, match=r'no keyframe of v1\.0-mini'):
        create_nuscenes_infos(copied_root, VERSION)
    assert not list(copied_root.glob('*.pkl'))


def _allow_small_files_only() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def test_full_disk_leaves_the_old_file(synthetic_root, tmp_path):
    """A real failure of the operating system while the tool writes: one line of error, nothing half written."""
    path = tmp_path / 'nuscenes_infos_temporal_train.pkl'
    path.write_bytes(b'old')
    command = ('create_data', 'nuscenes', '--root', synthetic_root, '--version', VERSION, '--out', tmp_path)
    done = run_tool(*command, '--overwrite', '--workers', 1, plant=_allow_small_files_only)
    assert done.returncode == 1
    assert done.last_line.startswith('error: ') and 'File too large' in done.last_line
    assert 'Traceback' not in done.output
    assert path.read_bytes() == b'old' and list(tmp_path.iterdir()) == [path]


def test_interrupt_leaves_no_file(tmp_path):
    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / 'infos.pkl') as file:
        file.write(b'half')
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_matching(infos):
    require_matching(infos['metainfo'], VERSION, ('barrier', 'car'), 'mini_train')
    with pytest.raises(ValueError, match=r'are of nuScenes v1\.0-mini, not v1\.0-trainval'):
        require_matching(infos['metainfo'], 'v1.0-trainval')
    with pytest.raises(ValueError, match='know no class Car'):
        require_matching(infos['metainfo'], classes=('Car', 'truck'))
    with pytest.raises(ValueError, match=r'split mini_train, not mini_val: .*test_evaluator\.split=mini_train'):
        require_matching(infos['metainfo'], split='mini_val')


@pytest.fixture(scope='module')
def real(shared_dir, tmp_path_factory):
    files = create_nuscenes_infos(
        shared_dir / 'real' / 'nuscenes', VERSION, tmp_path_factory.mktemp('real'), can_bus_message='official_v1'
    )
    assert list(files) == ['mini_val']  # no mini_train scene is there
    return load_infos(files['mini_val'])['data_list']


def test_real_frames_with_images(real):
    assert [entry['frame_idx'] for entry in real] == [0, 1, 2, 3, 8]
    assert {entry['scene_name'] for entry in real} == {'scene-0103'}


def frame_of(entry: dict) -> Frame:
    """The frame of an entry, as the dataset's meta gives it to a detector; it needs no cameras."""
    meta = {
        'lidar2img': np.zeros((0, 4, 4)),
        'ego2global': entry['ego2global'],
        'timestamp': entry['timestamp'],
        'scene_token': entry['scene_token'],
        'can_bus': entry['can_bus'][WITHOUT_POSE],
    }
    return Frame.from_meta(meta, num_cameras=0)


def test_real_inputs_are_those_of_the_published_model(real, shared_dir):
    """CAN-bus vectors, projections at half size and shifts that the published tiny model received (float16)."""
    expected = json.loads((shared_dir / 'real' / 'expected_scene-0103.json').read_text())
    grid = BEVGrid(50, 50, (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0))
    alignment, history = EgoAlignment.from_config({'preset': 'official_v1'}), None
    for entry, seen in zip(real[:4], expected['frames'], strict=True):
        frame = frame_of(entry)
        motion = alignment.motion([frame], [history])
        vector = alignment.motion_vector([frame], motion)[0]
        np.testing.assert_allclose(vector, seen['can_bus'], rtol=1e-3, atol=2e-5)
        if 'shift' in seen:
            shift = bev_shift(motion, grid)[0]
            np.testing.assert_allclose(shift, np.ravel(seen['shift']), rtol=1e-3, atol=2e-5)
        for name, matrix in zip(expected['order of cameras'], seen['lidar2img'], strict=True):
            camera = entry['images'][name]
            cam2img = np.diag([0.5, 0.5, 1.0]) @ camera['cam2img']
            np.testing.assert_allclose(cam2img @ np.array(camera['lidar2cam'])[:3], matrix[:3], rtol=1e-3, atol=1e-3)
        history = BEVHistory(torch.zeros(1), frame)


@pytest.mark.parametrize(
    ('frame', 'delta'), [(1, (3.7057065, -2.1037858, -1.0353196)), (2, (3.6282059, -2.1720683, -1.5740092))]
)
def test_real_pose_differences(real, frame, delta):
    poses = torch.tensor([real[index]['ego2global'] for index in (frame - 1, frame)], dtype=torch.float64)
    motion = planar_motion(poses[:1], poses[1:])
    assert [*motion.translation[0, :2], motion.turn[0]] == pytest.approx(delta, abs=1e-5)
