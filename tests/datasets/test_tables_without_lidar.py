"""Tables without LIDAR_TOP: a frame at the vehicle's origin takes its place, and says the same about the world."""

import json

import numpy as np
import pytest
from mmengine.registry import DefaultScope
from nuscenes import NuScenes

from bevformer_plugin.datasets import NuScenesTemporalDataset
from bevformer_plugin.datasets.infos import create_nuscenes_infos, load_infos, reference_record
from bevformer_plugin.visualization import FrameSource, draw_sample
from tests.helpers.annotations import has_points

VERSION = 'v1.0-mini'


@pytest.fixture
def root(copied_root, take_out_lidar):
    take_out_lidar()
    return copied_root


@pytest.fixture
def infos(root):
    return load_infos(create_nuscenes_infos(root, VERSION, workers=1)['mini_val'])


def test_axes_and_pose(root, infos, capsys):
    tables = NuScenes(VERSION, str(root), verbose=False)
    for entry in infos['data_list']:
        lidar2ego = np.array(entry['lidar_points']['lidar2ego'])
        np.testing.assert_allclose(lidar2ego @ [1, 0, 0, 1], [0, -1, 0, 1], atol=1e-12)  # right is minus left
        np.testing.assert_allclose(lidar2ego @ [0, 1, 0, 1], [1, 0, 0, 1], atol=1e-12)  # forward
        np.testing.assert_allclose(lidar2ego @ [0, 0, 1, 1], [0, 0, 1, 1], atol=1e-12)  # up
        assert entry['lidar_points']['lidar_path'] == ''
        sample = tables.get('sample', entry['token'])
        records = [tables.get('sample_data', token) for token in sample['data'].values()]
        nearest = min(abs(record['timestamp'] - sample['timestamp']) for record in records)
        record = reference_record(tables, sample)
        assert abs(record['timestamp'] - sample['timestamp']) == nearest
        pose = tables.get('ego_pose', record['ego_pose_token'])
        assert np.array(entry['ego2global'])[:3, 3].tolist() == pose['translation']
        assert entry['can_bus'][:3] == pose['translation']


def test_boxes_and_projections_agree_with_those_of_a_lidar(infos, info_files):
    compared = 0
    for entry, other in zip(infos['data_list'], load_infos(info_files['mini_val'])['data_list'], strict=True):
        to_global, others_to_global = (
            np.array(one['ego2global']) @ one['lidar_points']['lidar2ego'] for one in (entry, other)
        )
        moved = np.linalg.inv(to_global) @ others_to_global
        turn = np.arctan2(moved[1, 0], moved[0, 0])
        for box, its in zip(entry['instances'], other['instances'], strict=True):
            assert box['instance_token'] == its['instance_token']
            centre = (moved @ [*its['bbox_3d'][:3], 1])[:3]
            np.testing.assert_allclose(box['bbox_3d'][:3], centre, atol=1e-6)
            assert box['bbox_3d'][3:6] == its['bbox_3d'][3:6]
            difference = box['bbox_3d'][6] - its['bbox_3d'][6] - turn
            assert abs(np.arctan2(np.sin(difference), np.cos(difference))) < 1e-6
            velocity = (moved[:3, :3] @ [*its['velocity'], 0])[:2]
            np.testing.assert_allclose(box['velocity'], velocity, atol=1e-6)
            for camera, image in entry['images'].items():
                np.testing.assert_allclose(
                    np.array(image['lidar2cam']) @ [*box['bbox_3d'][:3], 1],
                    np.array(other['images'][camera]['lidar2cam']) @ [*its['bbox_3d'][:3], 1],
                    atol=1e-6,
                )
            compared += 1
    assert compared > 100


def test_it_is_said(root, capsys):
    create_nuscenes_infos(root, VERSION, workers=1)
    assert "No LIDAR_TOP in the tables: boxes are given in a frame at the vehicle's origin" in capsys.readouterr().out


def test_dataset_and_pictures(root, infos, tmp_path):
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        dataset = NuScenesTemporalDataset(str(root), 'nuscenes_infos_temporal_val.pkl', [], test_mode=True)
    assert infos['metainfo']['frame'] == dataset.metainfo['frame'] == 'vehicle'
    entry = infos['data_list'][0]
    counted = [i for i in entry['instances'] if has_points(i)]
    frame = dataset.get_data_info(0)
    assert len(frame['eval_ann_info']['gt_bboxes_3d']) == len(counted)
    assert frame['lidar2ego'].tolist() == entry['lidar_points']['lidar2ego']
    source = FrameSource(root, root / 'nuscenes_infos_temporal_val.pkl')
    assert source.frame(entry['token']).points() is None
    assert draw_sample(source, entry['token'], tmp_path).is_file()


def test_a_lidar_that_one_sample_lacks(copied_root, change_table):
    record = next(
        row
        for row in json.loads((copied_root / VERSION / 'sample_data.json').read_text())
        if '/LIDAR_TOP/' in row['filename']
    )
    change_table('sample_data', lambda rows: [row for row in rows if row['token'] != record['token']])
    with pytest.raises(ValueError, match=f'sample {record["sample_token"]} has no LIDAR_TOP .* though others have'):
        create_nuscenes_infos(copied_root, VERSION, workers=1)
