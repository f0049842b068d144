"""Info files whose entries were edited or are broken: refused when loaded, by sample and field."""

import math

import numpy as np
import pytest

from bevformer_plugin.datasets.infos import load_infos
from tests.helpers.info_files import write_infos

NAN, INFINITY = float('nan'), float('inf')


def set_in(*keys, to):
    """A change of an entry: the value under a chain of keys."""

    def change(entry):
        for key in keys[:-1]:
            entry = entry[key]
        entry[keys[-1]] = to

    return change


def remove(*keys):
    def change(entry):
        for key in keys[:-1]:
            entry = entry[key]
        del entry[keys[-1]]

    return change


FLAT = [[0.0, 0.0, 100.0], [0.0, 0.0, 56.0], [0.0, 0.0, 1.0]]
MIRROR = [[-1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]

ROLLED = [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, -1.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (remove('can_bus'), ' lacks can_bus'),
        (set_in('timestamp', to=NAN), ': timestamp is not finite: nan'),
        (set_in('timestamp', to='12:00'), ": timestamp is '12:00', not a number"),
        (set_in('ego2global', 0, 3, to=NAN), ': ego2global is not finite'),
        (set_in('ego2global', 0, to=[2.0, 0.0, 0.0, 0.0]), ': ego2global is no rotation and translation'),
        (set_in('ego2global', 3, to=[0.0, 0.0, 1.0, 1.0]), ': ego2global is no rotation and translation'),
        (remove('lidar_points', 'lidar2ego'), ': lidar_points lacks lidar2ego'),
        (set_in('lidar_points', 'lidar2ego', to=MIRROR), ': lidar2ego is no rotation and translation'),
        (set_in('ego2global', to=ROLLED), ': ego2global tips the z axis over'),
        (set_in('lidar_points', 'lidar2ego', to=ROLLED), ': lidar2ego tips the z axis over'),
        (set_in('can_bus', 7, to=NAN), ': can_bus is not finite'),
        (set_in('can_bus', to=[0.0] * 17), ': can_bus is .* not 18 numbers'),
        (set_in('can_bus', 3, to=7.0), ': rotation in can_bus is no rotation'),
        (set_in('images', to={}), ' has no images'),
        (remove('images', 'CAM_BACK', 'width'), ', CAM_BACK: image lacks width'),
        (set_in('images', 'CAM_BACK', 'lidar2cam', 1, to=[0.0]), ', CAM_BACK: lidar2cam is .* not 4 x 4 numbers'),
        (set_in('images', 'CAM_BACK', 'lidar2cam', 0, 0, to=INFINITY), ', CAM_BACK: lidar2cam is not finite'),
        (set_in('images', 'CAM_BACK', 'cam2img', to=FLAT), ', CAM_BACK: cam2img is no camera matrix'),
        (set_in('images', 'CAM_BACK', 'width', to=80), ', CAM_BACK: cam2img, of images of 80 x 112 pixels, has its'),
        (set_in('instances', 0, 'bbox_3d', 0, to=NAN), ': bbox_3d of box 0 is not finite'),
        (set_in('instances', 0, 'bbox_3d', 3, to=-1.0), ': bbox_3d of box 0 has a size that is not positive'),
        (set_in('instances', 0, 'bbox_3d', to=[0.0] * 9), ': bbox_3d of box 0 is .* not 7 numbers'),
        (set_in('instances', 0, 'velocity', to=[INFINITY, 0.0]), ': velocity of box 0 is not finite'),
        (set_in('instances', 0, 'bbox_label_3d', to=12), ': bbox_label_3d of box 0 is no label of the categories: 12'),
        (set_in('instances', 0, 'num_lidar_pts', to=-2), ': num_lidar_pts of box 0 is no number of points'),
        (set_in('instances', 0, 'visibility', to=5), ': visibility of box 0 is no level'),
        (remove('instances', 0, 'visibility'), ': entry of box 0 lacks visibility'),
    ],
)
def test_broken_entries(read_infos, tmp_path, change, message):
    infos = read_infos('mini_val')
    entry = infos['data_list'][4]
    change(entry)
    with pytest.raises(ValueError, match=rf'infos\.pkl: sample {entry["token"]}{message}'):
        load_infos(write_infos(tmp_path / 'infos.pkl', infos))


def test_extrinsics_the_wrong_way_round(read_infos, tmp_path):
    infos = read_infos('mini_val')
    entry = infos['data_list'][4]
    image = entry['images']['CAM_FRONT_LEFT']
    given = np.array(image['lidar2cam'])
    image['lidar2cam'] = np.linalg.inv(given).tolist()
    cosine = (np.trace((given @ given)[:3, :3]) - 1) / 2  # the two differ by twice the rotation
    angle = f'{np.degrees(np.arccos(cosine)):.1f}'
    message = rf'sample {entry["token"]}, CAM_FRONT_LEFT: lidar2cam turns by other degrees .* the angle is: {angle}$'
    with pytest.raises(ValueError, match=message):
        load_infos(write_infos(tmp_path / 'infos.pkl', infos))
    del image['cam2ego']
    assert load_infos(write_infos(tmp_path / 'infos.pkl', infos))['data_list'][4]['token'] == entry['token']


def test_timestamps_of_another_unit(read_infos, tmp_path):
    infos = read_infos('mini_val')
    for entry in infos['data_list']:
        entry['timestamp'] /= 1e6
    message = rf'sample {infos["data_list"][1]["token"]} is [45]\S*e-07 s after .* times are in seconds'
    with pytest.raises(ValueError, match=message):
        load_infos(write_infos(tmp_path / 'infos.pkl', infos))


def test_an_unknown_velocity_passes(read_infos, tmp_path):
    infos = read_infos('mini_val')
    infos['data_list'][4]['instances'][0]['velocity'] = [NAN, NAN]
    read = load_infos(write_infos(tmp_path / 'infos.pkl', infos))['data_list'][4]['instances'][0]['velocity']
    assert math.isnan(read[0]) and math.isnan(read[1])


def test_a_sample_twice(read_infos, tmp_path):
    infos = read_infos('mini_val')
    infos['data_list'].append(infos['data_list'][0])
    with pytest.raises(ValueError, match='holds a sample twice'):
        load_infos(write_infos(tmp_path / 'infos.pkl', infos))


def test_older_and_incomplete_files(read_infos, tmp_path):
    for key in ('scenes', 'frame'):
        infos = read_infos('mini_val')
        del infos['metainfo'][key]
        with pytest.raises(ValueError, match=rf'metainfo of .* lacks {key}: make infos with.*--overwrite'):
            load_infos(write_infos(tmp_path / 'infos.pkl', infos))
    infos = read_infos('mini_val')
    infos['metainfo']['info_version'] = '1.1'
    with pytest.raises(ValueError, match=r'temporal 1\.1, not bevformer_temporal 1\.2: make infos with.*--overwrite'):
        load_infos(write_infos(tmp_path / 'infos.pkl', infos))
    infos = read_infos('mini_val')
    infos['data_list'][0] = 'sample'
    with pytest.raises(ValueError, match=r'holds no list of samples'):
        load_infos(write_infos(tmp_path / 'infos.pkl', infos))
