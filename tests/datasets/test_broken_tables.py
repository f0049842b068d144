"""Creating infos from tables, messages and images that are broken: refused by name, and nothing is written."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bevformer_plugin.datasets.infos import create_nuscenes_infos, load_infos
from tests.helpers.processes import run_tool

VERSION = 'v1.0-mini'
NAN, INFINITY = float('nan'), float('inf')


@pytest.fixture
def own_samples(copied_root, synthetic_root):
    """The image folder of ``copied_root`` as hard links, whose files a test may remove or replace."""
    samples = copied_root / 'samples'
    samples.unlink()
    shutil.copytree(synthetic_root / 'samples', samples, copy_function=os.link)
    return samples


def read(root, name):
    return json.loads((root / VERSION / f'{name}.json').read_text())


def first_of(root, channel):
    """The ``sample_data`` row of a channel in the first sample of scene-0103."""
    scene = next(row for row in read(root, 'scene') if row['name'] == 'scene-0103')
    return next(
        row
        for row in read(root, 'sample_data')
        if row['sample_token'] == scene['first_sample_token'] and f'/{channel}/' in row['filename']
    )


def refused(root, message):
    with pytest.raises(ValueError, match=message):
        create_nuscenes_infos(root, VERSION, workers=1)
    assert not list(root.glob('*.pkl'))


@pytest.mark.parametrize('channel', ['LIDAR_TOP', 'CAM_BACK'])
@pytest.mark.parametrize(
    ('table', 'field', 'value', 'complaint'),
    [
        ('ego_pose', 'translation', [0.0, NAN, 0.0], 'is not finite'),
        ('ego_pose', 'rotation', [INFINITY, 0.0, 0.0, 0.0], 'is not finite'),
        ('ego_pose', 'rotation', [0.0, 0.0, 0.0, 0.0], 'is no rotation'),
        ('ego_pose', 'rotation', [90.0, 0.0, 0.0, 0.0], 'is no rotation'),
        ('ego_pose', 'rotation', [1.0, 0.0, 0.0], 'not 4 numbers'),
        ('ego_pose', 'translation', None, 'is None, not 3 numbers'),
        ('calibrated_sensor', 'translation', [0.0, 0.0, '1.5'], 'not 3 numbers'),
        ('calibrated_sensor', 'rotation', [1.0, 1.0, 0.0, 0.0], 'is no rotation'),
    ],
)
def test_broken_poses_and_mounts(copied_root, change_table, channel, table, field, value, complaint):
    record = first_of(copied_root, channel)
    token = record[f'{table}_token']

    def spoil(rows):
        for row in rows:
            if row['token'] == token:
                row[field] = value

    change_table(table, spoil)
    refused(copied_root, rf'{record["sample_token"]}, {channel}: {field} in {table}\.json.*{complaint}')


@pytest.mark.parametrize(
    ('matrix', 'complaint'),
    [
        ([], 'not 3 x 3 numbers'),
        ([[100.0, 0.0, 100.0], [0.0, 100.0, 56.0]], 'not 3 x 3 numbers'),
        ([[NAN, 0.0, 100.0], [0.0, 100.0, 56.0], [0.0, 0.0, 1.0]], 'is not finite'),
        ([[-100.0, 0.0, 100.0], [0.0, 100.0, 56.0], [0.0, 0.0, 1.0]], 'positive focal lengths'),
        ([[100.0, 0.0, 0.0], [0.0, 100.0, 0.0], [100.0, 56.0, 1.0]], 'the last row 0, 0, 1'),
        (
            [[100.0, 0.0, 300.0], [0.0, 100.0, 56.0], [0.0, 0.0, 1.0]],
            '200 x 112 pixels, has its principal point outside',
        ),
    ],
)
def test_broken_intrinsics(copied_root, change_table, matrix, complaint):
    record = first_of(copied_root, 'CAM_FRONT')

    def spoil(rows):
        for row in rows:
            if row['token'] == record['calibrated_sensor_token']:
                row['camera_intrinsic'] = matrix

    change_table('calibrated_sensor', spoil)
    refused(copied_root, rf'{record["sample_token"]}, CAM_FRONT: camera_intrinsic in calibrated_sensor.*{complaint}')


@pytest.mark.parametrize(
    ('field', 'value', 'complaint'),
    [
        ('translation', [NAN, 0.0, 0.0], 'is not finite'),
        ('size', [1.0, INFINITY, 1.0], 'is not finite'),
        ('size', [1.0, 0.0, 1.0], 'is not positive'),
        ('size', [1.0, 2.0], 'not 3 numbers'),
        ('rotation', [0.0, 0.0, 0.0, 0.0], 'is no rotation'),
        ('rotation', [0.0, 0.0, 0.6, 0.8], 'tips the z axis over'),
        ('num_lidar_pts', -1, 'is no number of points'),
        ('num_radar_pts', None, 'is no number of points'),
        ('attribute_tokens', ['a', 'b'], 'more than one attribute'),
    ],
)
def test_broken_annotations(copied_root, change_table, field, value, complaint):
    car = next(row['token'] for row in read(copied_root, 'category') if row['name'] == 'vehicle.car')
    cars = {row['token'] for row in read(copied_root, 'instance') if row['category_token'] == car}
    spoilt = []

    def spoil(rows):
        row = next(row for row in rows if row['instance_token'] in cars)
        row[field] = value
        spoilt.append(row)

    change_table('sample_annotation', spoil)
    refused(
        copied_root,
        f'sample {spoilt[0]["sample_token"]}: {field} of {spoilt[0]["token"]} in sample_annotation.*{complaint}',
    )


@pytest.mark.parametrize(
    ('change', 'complaint'),
    [
        ({'accel': [NAN, 0.0, 9.8]}, 'channel accel of its CAN-bus message .* is not finite'),
        ({'rotation_rate': [0.0, 0.0]}, r'channel rotation_rate .* is \[0\.0, 0\.0\], not 3 numbers'),
        ({'vel': [0.0, None, 0.0]}, 'channel vel .* not 3 numbers'),
        ({'vel': None}, 'channel vel .* is None, not 3 numbers'),
    ],
)
def test_broken_messages(copied_root, synthetic_root, change, complaint):
    scene = next(row for row in read(copied_root, 'scene') if row['name'] == 'scene-0103')
    sample = next(row for row in read(copied_root, 'sample') if row['prev'] == scene['first_sample_token'])
    path = own_can_bus(copied_root, synthetic_root) / 'scene-0103_pose.json'
    messages = json.loads(path.read_text())
    min(messages, key=lambda message: abs(message['utime'] - sample['timestamp'])).update(change)
    path.write_text(json.dumps(messages))
    refused(copied_root, f'sample {sample["token"]}: {complaint}')


@pytest.mark.parametrize('text', ['[{"utime": 1', '{"utime": 1}', '[{"accel": [0, 0, 0]}]', '[{"utime": "now"}]'])
def test_unreadable_messages(copied_root, synthetic_root, text):
    (own_can_bus(copied_root, synthetic_root) / 'scene-0103_pose.json').write_text(text)
    refused(copied_root, r'scene-0103_pose\.json is no list of CAN-bus messages with a utime')


def own_can_bus(root, synthetic_root):
    (root / 'can_bus').unlink()
    return Path(shutil.copytree(synthetic_root / 'can_bus', root / 'can_bus'))


def test_velocity_of_an_object_seen_once_is_unknown(copied_root, change_table):
    changed = []

    def once(rows):
        row = next(row for row in rows if row['prev'] and row['next'])
        row.update(prev='', next='')
        changed.append(row)

    change_table('sample_annotation', once)
    files = create_nuscenes_infos(copied_root, VERSION, workers=1)
    entries = [entry for path in files.values() for entry in load_infos(path)['data_list']]
    entry = next(entry for entry in entries if entry['token'] == changed[0]['sample_token'])
    found = [i for i in entry['instances'] if i['instance_token'] == changed[0]['instance_token']]
    assert len(found) == 1 and np.isnan(found[0]['velocity']).all()


def test_time_stands_still(copied_root, change_table):
    change_table('sample', lambda rows: [{**row, 'timestamp': 1_540_000_000} for row in rows])
    refused(copied_root, 'but the sample before it 1540000000: sample.json holds microseconds')


def test_times_in_nanoseconds(copied_root, change_table):
    """Whatever depends on the time between frames would see half a second as eight minutes."""
    for name in ('sample', 'sample_data', 'ego_pose'):
        change_table(name, lambda rows: [{**row, 'timestamp': row['timestamp'] * 1000} for row in rows])
    refused(copied_root, r'are 49\d\.\d+ s or more apart, if timestamps in sample\.json are microseconds')


def test_a_circle_of_samples(copied_root, change_table):
    def tie(rows):
        for row in rows:
            row['next'] = row['next'] or next(
                other['token'] for other in rows if not other['prev'] and other['scene_token'] == row['scene_token']
            )

    change_table('sample', tie)
    refused(copied_root, 'microseconds, which grow along next')


@pytest.mark.parametrize(
    ('table', 'change', 'message'),
    [
        ('sample', lambda rows: rows[:3] + rows[4:], 'cannot be read|do not fit together'),
        ('ego_pose', lambda rows: rows[1:], 'do not fit together'),
        ('calibrated_sensor', lambda rows: [{'token': row['token'], **row} for row in rows[:-1]], 'cannot be read'),
        ('visibility', lambda rows: [], 'do not fit together'),
        ('map', lambda rows: [], 'names no map of any log'),
        ('scene', lambda rows: [{**row, 'name': 'scene-0103'} for row in rows], 'several scenes named scene-0103'),
    ],
)
def test_tables_that_do_not_fit(copied_root, change_table, table, change, message):
    change_table(table, change)
    refused(copied_root, message)


@pytest.mark.parametrize('table', ['sample_annotation', 'sample', 'ego_pose', 'category'])
def test_a_row_twice(copied_root, change_table, table):
    token = read(copied_root, table)[0]['token']
    change_table(table, lambda rows: [*rows, rows[0]])
    refused(copied_root, rf'token {token} is twice in {table}\.json: write each row once')


def test_a_table_twice(copied_root, change_table):
    others = len(read(copied_root, 'sample_annotation')) - 1
    change_table('sample_annotation', lambda rows: rows + rows)
    refused(copied_root, rf'is twice in sample_annotation\.json \(and {others} more\)')


def test_two_key_frames_of_one_channel(copied_root, change_table):
    record = first_of(copied_root, 'CAM_BACK')
    change_table('sample_data', lambda rows: [*rows, {**record, 'token': 'second'}])
    refused(
        copied_root,
        f'sample {record["sample_token"]} has two key frames of CAM_BACK in sample_data.json, {record["token"]} and '
        'second: is_key_frame',
    )


def test_a_chain_that_ends_early(copied_root, change_table):
    scene = next(row for row in read(copied_root, 'scene') if row['name'] == 'scene-0103')

    def cut(rows):
        row = next(row for row in rows if row['prev'] == scene['first_sample_token'])
        row['next'] = ''

    change_table('sample', cut)
    refused(copied_root, 'scene-0103 has 6 samples by scene_token in sample.json, but its chain .* reaches 2: mend')


def test_a_chain_that_goes_on_in_another_scene(copied_root, change_table):
    spoilt = {}

    def join(rows):
        ends = [row for row in rows if not row['next']]
        first, second = sorted(ends, key=lambda row: row['timestamp'])[:2]
        while second['prev']:
            second = next(row for row in rows if row['token'] == second['prev'])
        first['next'] = second['token']
        spoilt.update(second)

    change_table('sample', join)
    refused(
        copied_root, f'sample {spoilt["token"]} is in the chain of scene-.*scene_token .* is {spoilt["scene_token"]}'
    )


@pytest.mark.parametrize('rule', ['nearest', 'official_v1'])
def test_messages_that_are_too_old(copied_root, synthetic_root, capsys, rule):
    scene = next(row for row in read(copied_root, 'scene') if row['name'] == 'scene-0103')
    samples = [row for row in read(copied_root, 'sample') if row['scene_token'] == scene['token']]
    start = min(row['timestamp'] for row in samples)
    path = own_can_bus(copied_root, synthetic_root) / 'scene-0103_pose.json'
    messages = [row for row in json.loads(path.read_text()) if row['utime'] <= start + 400_000]
    path.write_text(json.dumps(messages))
    near = {row['token'] for row in samples if row['timestamp'] - messages[-1]['utime'] <= 500_000}
    assert 0 < len(near) < 6
    files = create_nuscenes_infos(copied_root, VERSION, workers=1, can_bus_message=rule)
    entries = [row for row in load_infos(files['mini_val'])['data_list'] if row['scene_name'] == 'scene-0103']
    assert {row['token'] for row in entries if any(row['can_bus'][7:16])} == near
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith('scene-0103'))
    assert line.split()[-1] == str(6 - len(near))


def test_messages_of_another_clock(copied_root, synthetic_root):
    path = own_can_bus(copied_root, synthetic_root) / 'scene-0103_pose.json'
    messages = json.loads(path.read_text())
    path.write_text(json.dumps([{**row, 'utime': row['utime'] + 3_600_000_000} for row in messages]))
    refused(copied_root, r'none belongs to a keyframe of scene-0103: the nearest is 359\d(\.\d+)? s off, 0\.5 s')
    path.write_text(json.dumps([{**row, 'utime': row['utime'] / 1e6} for row in messages]))
    refused(copied_root, "utime is in microseconds of the samples' clock")


def test_messages_of_another_scene_are_said_to_be_unused(copied_root, synthetic_root, capsys):
    path = own_can_bus(copied_root, synthetic_root) / 'scene-0103_pose.json'
    messages = json.loads(path.read_text())
    path.write_text(json.dumps([{**row, 'utime': row['utime'] + 60_000_000} for row in messages]))
    files = create_nuscenes_infos(copied_root, VERSION, workers=1)
    entries = [row for row in load_infos(files['mini_val'])['data_list'] if row['scene_name'] == 'scene-0103']
    assert entries and not any(any(row['can_bus'][7:16]) for row in entries)
    said = capsys.readouterr().out
    assert 'scene-0103: no CAN-bus message is within 0.5 s of a keyframe' in said


def rename_categories(change_table, names):
    change_table('category', lambda rows: [{**row, 'name': names.get(row['name'], row['name'])} for row in rows])


def test_categories_of_other_names_are_named(copied_root, change_table, capsys):
    categories = {row['token']: row['name'] for row in read(copied_root, 'category')}
    instances = {row['token']: categories[row['category_token']] for row in read(copied_root, 'instance')}
    names = [instances[row['instance_token']] for row in read(copied_root, 'sample_annotation')]
    cars, trucks = names.count('vehicle.car'), names.count('vehicle.truck')
    assert cars and trucks
    rename_categories(change_table, {'vehicle.car': 'Auto', 'vehicle.truck': 'animal'})
    create_nuscenes_infos(copied_root, VERSION, workers=1)
    said = capsys.readouterr().out
    assert f"{trucks} annotations are of nuScenes' categories outside the ten classes and get no box." in said
    assert f'{cars} annotations get no box, because nuScenes has no category of their names: Auto ({cars})' in said


def test_no_category_of_nuscenes(copied_root, change_table):
    names = {row['name']: row['name'].rsplit('.', 1)[-1] for row in read(copied_root, 'category')}
    rename_categories(change_table, names)
    refused(copied_root, r'none of the \d+ annotations has a category of the ten .*car \(\d+\).*category\.json')


@pytest.mark.parametrize('channel', ['LIDAR_TOP', 'CAM_BACK'])
def test_a_sensor_of_another_time(copied_root, change_table, channel):
    record = first_of(copied_root, channel)

    def spoil(rows):
        for row in rows:
            if row['token'] == record['token']:
                row['timestamp'] += 700_000_000

    change_table('sample_data', spoil)
    refused(
        copied_root,
        rf'sample {record["sample_token"]} has timestamp \d+ in sample\.json, its key frame of {channel} '
        f'{record["timestamp"] + 700_000_000} in',
    )


@pytest.mark.parametrize('table', ['ego_pose', 'calibrated_sensor'])
def test_quaternions_in_another_order(copied_root, change_table, table):
    record = first_of(copied_root, 'LIDAR_TOP')

    def spoil(rows):
        for row in rows:
            if row['token'] == record[f'{table}_token']:
                row['rotation'] = [0.0, 0.0, 0.5**0.5, 0.5**0.5]  # a quarter turn to the left, as x, y, z, w

    change_table(table, spoil)
    complaint = 'tips the z axis over, which points up: quaternions are w, x, y, z'
    refused(copied_root, rf'sample {record["sample_token"]}, LIDAR_TOP: rotation in {table}\.json {complaint}')


def test_images_of_another_size(copied_root, own_samples):
    record = first_of(copied_root, 'CAM_FRONT')
    path = copied_root / record['filename']
    with Image.open(path) as image:
        small = image.resize((100, 56))
    path.unlink()
    small.save(path)
    refused(copied_root, rf'{path.name} .*CAM_FRONT\) is 100 x 56 pixels, but sample_data.json says 200 x 112')
    path.write_bytes(b'no image')
    refused(copied_root, 'is not a readable image: copy it again')


def test_a_camera_that_was_not_downloaded(copied_root, own_samples, capsys):
    shutil.rmtree(own_samples / 'CAM_BACK')
    message = 'CAM_BACK: no image of its 24 keyframes is on disk.*--cameras CAM_FRONT CAM_FRONT_RIGHT'
    with pytest.raises(FileNotFoundError, match=message):
        create_nuscenes_infos(copied_root, VERSION, workers=1)
    assert not list(copied_root.glob('*.pkl'))
    chosen = ['CAM_BACK_LEFT', 'CAM_FRONT']
    files = create_nuscenes_infos(copied_root, VERSION, workers=1, cameras=chosen)
    entries = load_infos(files['mini_val'])['data_list']
    assert {tuple(entry['images']) for entry in entries} == {('CAM_FRONT', 'CAM_BACK_LEFT')}
    assert len(entries) == 12
    with pytest.raises(ValueError, match=r'no camera CAM_TOP, CAM_LEFT in the tables of .*: they have CAM_FRONT'):
        create_nuscenes_infos(copied_root, VERSION, overwrite=True, cameras=['CAM_TOP', 'CAM_LEFT'])
    for cameras in ([], ['CAM_FRONT', 'CAM_FRONT']):
        with pytest.raises(ValueError, match=r'name at least one of CAM_FRONT, .* each once'):
            create_nuscenes_infos(copied_root, VERSION, overwrite=True, cameras=cameras)


def test_an_empty_file_is_no_image(copied_root, own_samples, capsys):
    record = first_of(copied_root, 'CAM_BACK')
    path = copied_root / record['filename']
    path.unlink()
    path.touch()
    entries = load_infos(create_nuscenes_infos(copied_root, VERSION, workers=1)['mini_val'])['data_list']
    assert len(entries) == 11 and record['sample_token'] not in {entry['token'] for entry in entries}
    assert 'mini_val: CAM_BACK lacks the image of 1 of 12 keyframes' in capsys.readouterr().out


def test_the_command_ends_with_a_line(copied_root, change_table):
    change_table('ego_pose', lambda rows: [{**row, 'rotation': [0, 0, 0, 0]} for row in rows])
    done = run_tool('create_data', 'nuscenes', '--root', copied_root, '--version', VERSION)
    assert done.returncode == 1 and 'Traceback' not in done.output
    assert done.last_line.startswith('error: sample ')
