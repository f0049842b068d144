"""Items with true maps."""

import json
import shutil

import numpy as np
import pytest
import torch

from bevformer_plugin.maps import PROTOCOLS, Footprints, find_protocol, map_labels, read_expansion
from tests.datasets.conftest import LOAD_AND_PACK

WITH_MAP = [*LOAD_AND_PACK[:-1], {'type': 'LoadMapLabels'}, LOAD_AND_PACK[-1]]


@pytest.mark.parametrize('name', ['paper', 'cvt'])
def test_items_have_the_map_of_their_current_frame(build_dataset, read_infos, synthetic_root, tables, name):
    dataset = build_dataset(pipeline=WITH_MAP, map_protocol=name, queue_length=2)
    assert dataset.metainfo['map_protocol'] == name
    protocol, infos = find_protocol(name), read_infos('mini_train')
    names = {label: class_name for class_name, label in infos['metainfo']['categories'].items()}
    for index in (0, 8):
        sample = dataset[index]['data_samples']
        entry = infos['data_list'][index]
        assert sample.sample_idx == entry['token']
        scene = tables.get('scene', entry['scene_token'])
        location = tables.get('log', scene['log_token'])['location']
        footprints = Footprints.of_boxes(
            np.array([instance['bbox_3d'] for instance in entry['instances']]),
            np.array([names[instance['bbox_label_3d']] for instance in entry['instances']]),
            np.array([instance['visibility'] for instance in entry['instances']]),
        )
        expected = map_labels(
            protocol,
            read_expansion(synthetic_root, location, protocol.areas + protocol.lines, 'a test'),
            footprints,
            np.array(entry['ego2global']),
            np.array(entry['lidar_points']['lidar2ego']),
        )
        assert sample.gt_map.data.dtype == torch.uint8
        np.testing.assert_array_equal(sample.gt_map.data.numpy(), expected)
        assert (expected == 1).any(axis=(1, 2)).all()


def test_maps_count_boxes_of_all_classes_within_and_beyond_the_range(build_dataset):
    """Labels of a map depend neither on the classes that are detected nor on the range of training boxes."""
    whole = build_dataset(pipeline=WITH_MAP, map_protocol='paper')[3]['data_samples'].gt_map.data
    few = build_dataset(
        pipeline=WITH_MAP,
        map_protocol='paper',
        metainfo=dict(classes=['pedestrian']),
        point_cloud_range=[-5.0, -5.0, -5.0, 5.0, 5.0, 3.0],
    )[3]['data_samples'].gt_map.data
    assert torch.equal(whole, few)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(map_protocol='papr', pipeline=WITH_MAP), "no map protocol 'papr'"),
        (dict(map_protocol='paper'), "map_protocol='paper' has no effect: put dict.type='LoadMapLabels'."),
        (
            dict(map_protocol='paper', pipeline=[*LOAD_AND_PACK, {'type': 'LoadMapLabels'}]),
            'has no effect: put .* into the pipeline, before PackTemporalInputs',
        ),
        (dict(pipeline=WITH_MAP), 'LoadMapLabels in the pipeline draws maps by map_protocol'),
    ],
)
def test_settings_of_maps_are_checked(build_dataset, arguments, message):
    with pytest.raises(ValueError, match=message):
        build_dataset(**arguments)


def test_infos_without_boxes_have_no_vehicles_to_draw(build_dataset, read_infos):
    """As of a test split, where a score would count every predicted vehicle as wrong."""
    infos = read_infos('mini_val')
    for entry in infos['data_list']:
        entry['instances'] = []
    message = r'infos\.pkl holds no boxes, of which the classes car, vehicles of .*--format-only and --maps-out'
    with pytest.raises(ValueError, match=message):
        build_dataset(infos, pipeline=WITH_MAP, map_protocol='paper', test_mode=True)
    tested = [step for step in WITH_MAP if step['type'] != 'LoadAnnotations3D']
    drawn = build_dataset(infos, pipeline=tested, map_protocol='bevfusion', test_mode=True)
    assert (drawn[0]['data_samples'].gt_map.data[0] == 1).any()


def test_cvt_needs_visibility(build_dataset, read_infos):
    infos = read_infos('mini_train')
    infos['data_list'][2]['instances'][0]['visibility'] = 0
    with pytest.raises(ValueError, match="map_protocol='cvt' leaves boxes of low visibility out, but 1 of"):
        build_dataset(infos, pipeline=WITH_MAP, map_protocol='cvt')
    build_dataset(infos, pipeline=WITH_MAP, map_protocol='paper')


@pytest.fixture
def root_without(copied_root):
    """The dataroot with its own folder of maps, so that a file of it may be taken away."""
    maps = (copied_root / 'maps').resolve()
    (copied_root / 'maps').unlink()
    shutil.copytree(maps, copied_root / 'maps')
    return copied_root


@pytest.mark.parametrize('name', PROTOCOLS)
def test_a_missing_expansion_is_named_before_anything_else(build_dataset, root_without, tables, name):
    location = tables.get('log', tables.scene[0]['log_token'])['location']
    path = root_without / 'maps' / 'expansion' / f'{location}.json'
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f"no map expansion {path}, which map_protocol='{name}' needs"):
        build_dataset(pipeline=WITH_MAP, map_protocol=name, data_root=str(root_without))


def test_tables_that_do_not_know_a_scene_are_refused(build_dataset, copied_root):
    path = copied_root / 'v1.0-mini' / 'scene.json'
    path.write_text(json.dumps(json.loads(path.read_text())[1:]))
    with pytest.raises(ValueError, match=r'scene .* of the infos is not in .*scene\.json'):
        build_dataset(pipeline=WITH_MAP, map_protocol='paper', data_root=str(copied_root))
    log = copied_root / 'v1.0-mini' / 'log.json'
    log.write_text(json.dumps([{**row, 'location': None} for row in json.loads(log.read_text())]))
    with pytest.raises(ValueError, match=r'scene .* of the infos is not in|log\.json .* has location None'):
        build_dataset(pipeline=WITH_MAP, map_protocol='paper', data_root=str(copied_root))
    log.unlink()
    with pytest.raises(FileNotFoundError, match=r'no table .*log\.json'):
        build_dataset(pipeline=WITH_MAP, map_protocol='paper', data_root=str(copied_root))


def test_real_keyframes_have_no_expansion(shared_dir, tmp_path):
    """The basemaps of the small real root are no map expansion."""
    from bevformer_plugin.datasets.map_source import MapSource

    root = shared_dir / 'real' / 'nuscenes'
    versions = [path.name for path in root.iterdir() if path.name.startswith('v1.0')]
    scenes = [row['token'] for row in json.loads((root / versions[0] / 'scene.json').read_text())]
    with pytest.raises(FileNotFoundError, match=f'no map expansion {root}/maps/expansion/.*json'):
        MapSource(root, versions[0], scenes, find_protocol('paper'))
