"""Checking a folder of tables: nothing is said about good ones, and every planted fault is named with its record."""

import json
import os
import re
import shutil
from collections.abc import Callable

import pytest
from PIL import Image

from bevformer_plugin.datasets.infos import create_nuscenes_infos
from bevformer_plugin.diagnosis import check_data
from tests.helpers.processes import run_tool

VERSION = 'v1.0-mini'
NAN = float('nan')
CAMERAS = 6


def own_folder(root, synthetic_root, name):
    """A folder of the copied root as hard links, whose files a test may remove or replace."""
    (root / name).unlink()
    shutil.copytree(synthetic_root / name, root / name, copy_function=os.link)
    return root / name


def read(root, table):
    return json.loads((root / VERSION / f'{table}.json').read_text())


def write(root, table, rows):
    (root / VERSION / f'{table}.json').write_text(json.dumps(rows))


def scene_rows(root):
    """The rows of ``sample`` of scene-0103 in time order."""
    scene = next(row for row in read(root, 'scene') if row['name'] == 'scene-0103')
    rows = [row for row in read(root, 'sample') if row['scene_token'] == scene['token']]
    return sorted(rows, key=lambda row: row['timestamp'])


def first_record(root, channel='CAM_FRONT'):
    """The row of ``sample_data`` of a channel in the first sample of scene-0103."""
    token = scene_rows(root)[0]['token']
    return next(
        row for row in read(root, 'sample_data') if row['sample_token'] == token and f'/{channel}/' in row['filename']
    )


def a_car(root):
    """An annotation of a car that has one before and one after it."""
    cars = {row['token'] for row in read(root, 'category') if row['name'] == 'vehicle.car'}
    objects = {row['token'] for row in read(root, 'instance') if row['category_token'] in cars}
    return next(
        row
        for row in read(root, 'sample_annotation')
        if row['instance_token'] in objects and row['prev'] and row['next']
    )


def put(root, table, token, **values):
    """Set values in a row, and return its token."""
    rows = read(root, table)
    next(row for row in rows if row['token'] == token).update(values)
    write(root, table, rows)
    return token


def drop(root, table, token):
    """Take a row out."""
    write(root, table, [row for row in read(root, table) if row['token'] != token])
    return token


def all_rows(root, table, change: Callable[[dict], dict]):
    write(root, table, [{**row, **change(row)} for row in read(root, table)])


def lose_column(root, table, token, column):
    rows = read(root, table)
    del next(row for row in rows if row['token'] == token)[column]
    write(root, table, rows)
    return token


def repeat(root, table):
    rows = read(root, table)
    write(root, table, [*rows, rows[0]])
    return rows[0]['token']


def second_key_frame(root):
    record = first_record(root)
    write(root, 'sample_data', [*read(root, 'sample_data'), {**record, 'token': 'other', 'prev': '', 'next': ''}])
    return record['sample_token']


def second_annotation(root):
    car = a_car(root)
    write(root, 'sample_annotation', [*read(root, 'sample_annotation'), {**car, 'token': 'b', 'prev': '', 'next': ''}])
    return 'b'


def local_boxes(root):
    """Boxes of a scene in the frame of a vehicle that is far from the origin."""
    far = [5000.0, 9000.0, 0.0]
    all_rows(
        root, 'ego_pose', lambda row: {'translation': [a + b for a, b in zip(row['translation'], far, strict=True)]}
    )
    return a_car(root)['sample_token']


def messages(root, synthetic_root, change):
    path = own_folder(root, synthetic_root, 'can_bus') / 'scene-0103_pose.json'
    rows = [{**row, **change(row)} for row in json.loads(path.read_text())]
    path.unlink()
    path.write_text(json.dumps(rows))


def spoil_image(root, synthetic_root, spoil):
    own_folder(root, synthetic_root, 'samples')
    path = root / first_record(root)['filename']
    content = path.read_bytes()
    path.unlink()
    spoil(path, content)
    return path.name


def resized(path, _content):
    Image.new('RGB', (100, 56)).save(path)


# Name, what spoils a root and returns what names the record, part, message, how many faults there are.
TABLES = [
    ('table missing', lambda r: (r / VERSION / 'ego_pose.json').unlink(), 'files', r'ego_pose\.json: there is no such table', 1),
    ('table cut short', lambda r: (r / VERSION / 'sample.json').write_text('[{"token"'), 'files', r'sample\.json: cannot be read as JSON', 1),
    ('table that is no list', lambda r: (r / VERSION / 'log.json').write_text('{}'), 'files', r'log\.json: is no list of objects', 1),
    ('column missing', lambda r: lose_column(r, 'sample_annotation', a_car(r)['token'], 'num_lidar_pts'), 'columns', 'num_lidar_pts is missing', 1),
    ('text for a time', lambda r: put(r, 'sample', scene_rows(r)[1]['token'], timestamp='now'), 'columns', 'timestamp is "now", not a whole number or a number', 1),
    ('null for a rotation', lambda r: put(r, 'ego_pose', first_record(r)['ego_pose_token'], rotation=None), 'columns', 'rotation is null, not a list', 1),
    ('number for a token', lambda r: put(r, 'sample', scene_rows(r)[1]['token'], next=7), 'columns', 'next is 7, not text', 1),
    ('row twice', lambda r: repeat(r, 'category'), 'tokens', r'is twice in category\.json', 1),
    ('pose missing', lambda r: drop(r, 'ego_pose', first_record(r)['ego_pose_token']), 'tokens', r'ego_pose_token .* no row of ego_pose\.json', 1),
    ('unknown attribute', lambda r: put(r, 'sample_annotation', a_car(r)['token'], attribute_tokens=['x']), 'tokens', "attribute 'x' is the token of no row", 1),
    ('unknown visibility', lambda r: put(r, 'sample_annotation', a_car(r)['token'], visibility_token='9'), 'tokens', "visibility_token '9' is the token of no row", 1),
    ('log without a map', lambda r: all_rows(r, 'map', lambda row: {'log_tokens': ['x']}), 'tokens', r'no row of map\.json has it', 4),
    ('chain of samples cut', lambda r: put(r, 'sample', scene_rows(r)[2]['token'], next=''), 'chains', None, 4),
    ('chain into another scene', lambda r: put(r, 'sample', scene_rows(r)[5]['token'], next=next(row['token'] for row in read(r, 'sample') if not row['prev'] and row['scene_token'] != scene_rows(r)[0]['scene_token'])), 'chains', None, None),
    ('samples that turn in a circle', lambda r: put(r, 'sample', scene_rows(r)[5]['token'], next=scene_rows(r)[0]['token']), 'chains', 'but prev of that row is empty', 1),
    ('wrong number of samples', lambda r: put(r, 'scene', scene_rows(r)[0]['scene_token'], nbr_samples=5), 'chains', 'nbr_samples is 5, but its chain has 6 rows', 1),
    ('chain of an object cut', lambda r: put(r, 'sample_annotation', a_car(r)['token'], next=''), 'chains', None, None),
    ('object twice in a sample', second_annotation, 'chains', 'has another annotation in sample', 2),
    ('stream of another camera', lambda r: put(r, 'sample_data', first_record(r)['token'], next=first_record(r, 'CAM_BACK')['next']), 'chains', 'of another scene and sensor', 3),
    ('two key frames of a camera', second_key_frame, 'key frames', 'has two key frames of CAM_FRONT', 1),
    ('no key frame of a camera', lambda r: put(r, 'sample_data', first_record(r)['token'], is_key_frame=False) and first_record(r)['sample_token'], 'key frames', r'no key frame of CAM_FRONT in sample_data\.json', 1),
    ('sensor of another time', lambda r: put(r, 'sample_data', first_record(r)['token'], timestamp=first_record(r)['timestamp'] + 1_500_000) and first_record(r)['sample_token'], 'timestamps', 'its key frame of CAM_FRONT', None),
    ('pose of another time', lambda r: put(r, 'ego_pose', first_record(r)['ego_pose_token'], timestamp=0), 'timestamps', r'CAM_FRONT\) has timestamp', 1),
    ('time that is not finite', lambda r: put(r, 'sample', scene_rows(r)[1]['token'], timestamp=NAN), 'timestamps', 'timestamp is not finite', 1),
    ('pose of NaN', lambda r: put(r, 'ego_pose', first_record(r)['ego_pose_token'], translation=[NAN, 0, 0]), 'poses', r'translation in ego_pose\.json is not finite', 1),
    ('pose tipped over', lambda r: put(r, 'ego_pose', first_record(r)['ego_pose_token'], rotation=[0, 0, 0.5**0.5, 0.5**0.5]), 'poses', 'tips the z axis over', 1),
    ('pose that jumps', lambda r: put(r, 'ego_pose', first_record(r, 'LIDAR_TOP')['ego_pose_token'], translation=[900.0, 0, 0]) and scene_rows(r)[1]['token'], 'poses', r'from where it was 0\.\d+ s before', 1),
    ('mount of two numbers', lambda r: put(r, 'calibrated_sensor', first_record(r)['calibrated_sensor_token'], translation=[1, 2]), 'calibration', 'not 3 numbers', 1),
    ('mount that is no rotation', lambda r: put(r, 'calibrated_sensor', first_record(r)['calibrated_sensor_token'], rotation=[1, 1, 0, 0]), 'calibration', 'is no rotation', 1),
    ('LiDAR tipped over', lambda r: put(r, 'calibrated_sensor', first_record(r, 'LIDAR_TOP')['calibrated_sensor_token'], rotation=[0, 1, 0, 0]), 'calibration', r'\(LIDAR_TOP\).*tips the z axis over', 1),
    ('calibration of larger images', lambda r: put(r, 'calibrated_sensor', first_record(r)['calibrated_sensor_token'], camera_intrinsic=[[900, 0, 800], [0, 900, 450], [0, 0, 1]]), 'calibration', 'principal point outside', 1),
    ('box without a width', lambda r: put(r, 'sample_annotation', a_car(r)['token'], size=[0, 4, 2]), 'boxes', r'size of .* is not positive', 1),
    ('box of length-0 rotation', lambda r: put(r, 'sample_annotation', a_car(r)['token'], rotation=[0, 0, 0, 0]), 'boxes', r'rotation of .* is no rotation', 1),
    ('negative number of points', lambda r: put(r, 'sample_annotation', a_car(r)['token'], num_lidar_pts=-1), 'boxes', 'is no number of points', 1),
    ('level of visibility', lambda r: put(r, 'visibility', '1', level='v0-30') and 'v0-30', 'boxes', 'nuScenes has v0-40', 1),
    ('boxes in the frame of the vehicle', local_boxes, 'boxes', 'boxes are given in the global frame', None),
    ('no map image', lambda r: all_rows(r, 'map', lambda row: {'filename': 'maps/no.png'}), 'scenes', r'lacks maps/no\.png', 1),
    ('scenes of one name', lambda r: all_rows(r, 'scene', lambda row: {'name': 'scene-0103'}), 'scenes', 'several scenes named scene-0103', 4),
    ('scenes of no split', lambda r: all_rows(r, 'scene', lambda row: {'name': f'drive-{row["token"]}'}), 'scenes', 'belongs to the splits mini_train, mini_val', 1),
    ('categories of other names', lambda r: all_rows(r, 'category', lambda row: {'name': row['name'].split('.')[-1]}), 'scenes', 'has a category of the ten detection classes', 1),
]  # fmt: skip


def test_nothing_is_said_about_good_tables(synthetic_root):
    report = check_data(synthetic_root)
    assert report.count == 0 and report.notes == []
    assert report.text().endswith('no faults: tools/create_data.py takes it')
    assert report.summary.startswith('4 scenes, 24 samples, 168 key frames of 7 sensors (6 camera, 1 lidar), ')


@pytest.mark.parametrize(('spoil', 'part', 'message', 'count'), [pytest.param(*row[1:], id=row[0]) for row in TABLES])
def test_a_planted_fault_is_named(copied_root, spoil, part, message, count):
    record = spoil(copied_root)
    report = check_data(copied_root, VERSION, workers=1)
    found = report.faults[part]
    text = '\n'.join(found)
    assert re.search(message or '', text) and found, report.text()
    if isinstance(record, str):
        assert record in text
    if count is not None:
        assert report.count == count, report.text()


MESSAGES = [
    ('message of NaN', lambda row: {'accel': [NAN, 0.0, 0.0]}, 'channel accel of its CAN-bus message', 6),
    (
        'messages of another clock',
        lambda row: {'utime': row['utime'] + 3_600_000_000},
        'none belongs to a keyframe',
        1,
    ),
    ('messages of another scene', lambda row: {'utime': row['utime'] + 60_000_000}, 'none belongs to a keyframe', 1),
]


@pytest.mark.parametrize(('change', 'message', 'count'), [pytest.param(*row[1:], id=row[0]) for row in MESSAGES])
def test_broken_messages_are_named(copied_root, synthetic_root, change, message, count):
    messages(copied_root, synthetic_root, change)
    report = check_data(copied_root, workers=1)
    assert report.count == len(report.faults['CAN bus']) == count
    assert all(message in fault for fault in report.faults['CAN bus'])


IMAGES = [
    ('missing', lambda path, content: None, 'there is no such file'),
    ('empty', lambda path, content: path.write_bytes(b''), 'or it is empty'),
    ('cut short', lambda path, content: path.write_bytes(content[: len(content) // 2]), 'is cut short'),
    ('a page', lambda path, content: path.write_bytes(b'<html></html>'), 'is not a readable image'),
    ('of another size', resized, r'the file is 100 x 56'),
]


@pytest.mark.parametrize(('spoil', 'message'), [pytest.param(*row[1:], id=row[0]) for row in IMAGES])
@pytest.mark.parametrize('workers', [1, 2])
def test_a_broken_image_is_named(copied_root, synthetic_root, spoil, message, workers):
    name = spoil_image(copied_root, synthetic_root, spoil)
    report = check_data(copied_root, workers=workers)
    assert report.count == 1
    assert name in report.faults['images'][0] and re.search(message, report.faults['images'][0])


def test_a_camera_that_was_not_copied_is_one_fault_for_each_scene(copied_root, synthetic_root):
    shutil.rmtree(own_folder(copied_root, synthetic_root, 'samples') / 'CAM_BACK')
    report = check_data(copied_root, workers=1)
    assert report.count == len(report.faults['images']) == 4
    assert all('CAM_BACK: none of its 6 images is under' in fault for fault in report.faults['images'])


def test_all_faults_are_found_at_once(copied_root):
    """Three bad boxes in one table, a pose, a count and a mount: six faults, each with its record."""
    car = a_car(copied_root)
    rows = read(copied_root, 'sample_annotation')
    cars = [row['token'] for row in rows if row['instance_token'] == car['instance_token']]
    for token in cars[:3]:
        put(copied_root, 'sample_annotation', token, size=[1.0, NAN, 1.0])
    pose = put(copied_root, 'ego_pose', first_record(copied_root)['ego_pose_token'], rotation=[9, 0, 0, 0])
    scene = put(copied_root, 'scene', scene_rows(copied_root)[0]['scene_token'], nbr_samples=1)
    mount = put(
        copied_root, 'calibrated_sensor', first_record(copied_root)['calibrated_sensor_token'], rotation=[1, 2]
    )
    text = check_data(copied_root, workers=1).text()
    assert text.splitlines()[-1] == '6 faults (chains 1, poses 1, calibration 1, boxes 3)'
    assert all(token in text for token in (*cars[:3], pose, scene, mount))


REFUSED_BY_CREATION = [row for row in TABLES if row[0] not in (
    # Creation does not read these columns or tolerates what they hold.
    'table that is no list', 'text for a time', 'number for a token', 'unknown attribute', 'sensor of another time', 'samples that turn in a circle', 'wrong number of samples',
    'chain of an object cut', 'object twice in a sample', 'stream of another camera', 'no key frame of a camera', 'pose of another time',
    'time that is not finite', 'pose that jumps', 'boxes in the frame of the vehicle',
)]  # fmt: skip


@pytest.mark.parametrize('spoil', [pytest.param(row[1], id=row[0]) for row in REFUSED_BY_CREATION])
def test_what_creation_refuses_is_found(copied_root, spoil):
    """The table above with creation in the place of the check, so that neither knows a rule that the other lacks."""
    spoil(copied_root)
    with pytest.raises((ValueError, OSError)):
        create_nuscenes_infos(copied_root, VERSION, workers=1)


def test_tables_without_a_lidar_and_own_splits(copied_root, take_out_lidar, change_table):
    take_out_lidar()
    change_table('scene', lambda rows: [row.update(name=f'drive_{index}') for index, row in enumerate(rows)] and rows)
    (copied_root / VERSION).rename(copied_root / 'town')
    (copied_root / 'town' / 'splits.json').write_text(json.dumps({'my_train': ['drive_0', 'drive_1', 'drive_2']}))
    report = check_data(copied_root, workers=1)
    assert report.count == 0, report.text()
    assert [note[:20] for note in report.notes] == ['no LIDAR_TOP in sens', '1 scenes belong to n']


def test_the_real_tables_lack_images_and_nothing_else(shared_dir):
    report = check_data(shared_dir / 'real' / 'nuscenes', workers=2)
    assert {part for part, faults in report.faults.items() if faults} == {'images'}
    assert report.count == 35 * CAMERAS + CAMERAS  # of scene-0103 five of 40 keyframes are there, of scene-0916 none


def test_the_command(copied_root):
    done = run_tool('check_data', copied_root, '--workers', 1)
    assert done.returncode == 0 and done.last_line == 'no faults: tools/create_data.py takes it'
    token = put(copied_root, 'sample_annotation', a_car(copied_root)['token'], size=[0, 0, 0])
    done = run_tool('check_data', copied_root, '--version', VERSION, '--workers', 1)
    assert done.returncode == 1 and done.last_line == '1 fault (boxes 1)' and token in done.output
    shutil.copytree(copied_root / VERSION, copied_root / 'town')
    done = run_tool('check_data', copied_root)
    assert done.returncode == 1
    assert (
        done.last_line == f'error: {copied_root} holds the tables of town, v1.0-mini: give one of them with --version'
    )
