"""The ten lines of docs/own_cameras.md run, on the synthetic world and on photographs, and so does tools/predict.py."""

import json
import re
import shutil

import cv2
import numpy as np
import pytest
from nuscenes import NuScenes
from scipy.spatial.transform import Rotation

from bevformer_plugin.datasets.infos import load_infos
from bevformer_plugin.deployment import Camera, Rig
from tests.helpers.processes import run_tool
from tests.helpers.repository import CONFIGS, NANO_WEIGHTS, REPO

CAMERAS = ('CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_FRONT_LEFT', 'CAM_BACK', 'CAM_BACK_LEFT', 'CAM_BACK_RIGHT')


def ten_lines(language=''):
    return re.search(r'```python\n(.*?)```', (REPO / 'docs' / f'own_cameras{language}.md').read_text(), re.DOTALL)[1]


def run_guide(drive, rig, folder, monkeypatch):
    """Run the ten lines in a folder with the files that they name, and return what they leave."""
    shutil.copy(NANO_WEIGHTS, folder / 'bevformer_nano.pth')
    rig.to_file(folder / 'rig.yaml')
    monkeypatch.chdir(folder)
    names = {'drive': drive}
    exec(compile(ten_lines(), 'own_cameras.md', 'exec'), names)
    return names


@pytest.fixture(scope='module')
def scene(synthetic_root, info_files):
    """The frames of one validation scene as the guide wants them, and its rig."""
    infos = load_infos(info_files['mini_val'], root=synthetic_root)['data_list']
    infos = [info for info in infos if info['scene_token'] == infos[0]['scene_token']]
    drive = []
    for info in infos:
        x, y, yaw = planar(np.array(info['ego2global']))
        files = {name: str(synthetic_root / image['img_path']) for name, image in info['images'].items()}
        drive.append((info['timestamp'], (x, y, yaw), files))
    return drive, Rig.from_info(infos[0])


def planar(pose):
    return float(pose[0, 3]), float(pose[1, 3]), float(np.arctan2(pose[1, 0], pose[0, 0]))


def test_there_are_ten_lines_in_both_languages():
    code = [line for line in ten_lines().splitlines() if line]
    assert len(code) <= 10
    assert ten_lines('_zh-CN') == ten_lines()


def test_they_run_on_the_synthetic_world(scene, tmp_path, monkeypatch, capsys):
    drive, rig = scene
    left = run_guide(drive, rig, tmp_path, monkeypatch)
    assert len(left['detections'].above(0.3)) > 2 and left['state'].history is not None
    assert capsys.readouterr().out.count('car 0.') > 3
    assert cv2.imread('detections.png').shape[1] == 1920


def test_they_run_on_photographs(shared_dir, tmp_path, monkeypatch):
    root = shared_dir / 'real' / 'nuscenes'
    tables = NuScenes('v1.0-mini', str(root), verbose=False)
    samples = sorted(tables.sample, key=lambda sample: sample['timestamp'])
    drive, cameras = [], {}
    for sample in samples:
        records = {name: tables.get('sample_data', sample['data'][name]) for name in CAMERAS}
        files = {name: str(root / record['filename']) for name, record in records.items()}
        if not all((root / record['filename']).is_file() for record in records.values()):
            continue
        pose = tables.get('ego_pose', tables.get('sample_data', sample['data']['LIDAR_TOP'])['ego_pose_token'])
        matrix = np.eye(4)
        matrix[:3, :3] = Rotation.from_quat(np.roll(pose['rotation'], -1)).as_matrix()
        matrix[:3, 3] = pose['translation']
        drive.append((sample['timestamp'] / 1e6, matrix, files))
        for name, record in records.items():
            row = tables.get('calibrated_sensor', record['calibrated_sensor_token'])
            cameras[name] = Camera.from_nuscenes(row, (record['width'], record['height']))
    assert len(drive) == 5
    left = run_guide(drive, Rig(cameras), tmp_path, monkeypatch)
    assert len(left['detections']) == 300 and np.isfinite(left['detections'].boxes_in('global').centers).all()
    # Four keyframes half a second apart and one two and a half seconds later, which is beyond max_time_gap.
    assert left['state'].history.frame.timestamp == drive[-1][0]


@pytest.fixture
def frames(scene, tmp_path):
    """The scene as a folder for tools/predict.py, with rig.yaml and poses.csv beside it."""
    drive, rig = scene
    for seconds, _, files in drive[:3]:
        for name, file in files.items():
            target = tmp_path / 'drive' / name / f'{seconds!r}.jpg'
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    rig.to_file(tmp_path / 'rig.yaml')
    rows = [f'{seconds!r},{x!r},{y!r},{yaw!r}' for seconds, (x, y, yaw), _ in drive]
    (tmp_path / 'poses.csv').write_text('\n'.join(['timestamp,x,y,yaw', *rows]))
    return tmp_path


def predict(folder, *more):
    arguments = ['--frames', folder / 'drive', '--rig', folder / 'rig.yaml', '--out', folder / 'out', '--no-optimize']
    return run_tool('predict', CONFIGS / 'bevformer_nano.py', NANO_WEIGHTS, *arguments, '--device', 'cpu', *more)


def test_the_tool_writes_lines_pictures_and_a_video(frames):
    next((frames / 'drive' / 'CAM_BACK').iterdir()).unlink()
    tool = predict(frames, '--poses', frames / 'poses.csv', '--video')
    assert tool.returncode == 0, tool.output[-2000:]
    lines = [json.loads(line) for line in (frames / 'out' / 'detections.jsonl').read_text().splitlines()]
    assert [line['frame'] for line in lines] == ['global'] * 3 and sum(len(line['objects']) for line in lines) > 5
    assert 'frames a second' in tool.last_line and '1 times a camera had no image' in tool.output
    assert len(list((frames / 'out').glob('*.png'))) == 3
    video = cv2.VideoCapture(str(frames / 'out' / 'video.mp4'))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 3
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(2, rel=0.05)


def rename(folder, name):
    first = sorted((folder / 'drive' / 'CAM_BACK').iterdir())[0]
    first.rename(first.with_name(name))


@pytest.mark.parametrize(
    ('harm', 'message'),
    [
        (lambda f: shutil.rmtree(f / 'drive'), 'no folder'),
        (
            lambda f: shutil.rmtree(f / 'drive' / 'CAM_BACK'),
            'has no folder of images for CAM_BACK; it holds CAM_BACK_L',
        ),
        (lambda f: (f / 'drive' / 'ROOF').mkdir(), 'has images of ROOF, which the rig does not have'),
        (lambda f: rename(f, 'first.jpg'), 'is not named by its time'),
        (lambda f: rename(f, '1540000123332593.jpg'), 'looks like micro- or nanoseconds'),
        (lambda f: (f / 'rig.yaml').write_text('cameras: {}'), 'a rig has at least one camera'),
        (lambda f: (f / 'rig.yaml').unlink(), 'rig.yaml does not exist'),
        (lambda f: (f / 'poses.csv').write_text('time,x,y,yaw\n1,2,3,4'), 'has the columns time, x, y, yaw; they are'),
        (lambda f: (f / 'poses.csv').write_text('timestamp,x,y,yaw\n1,2,3,4'), 'there is no pose for time'),
        (lambda f: (f / 'poses.csv').write_text('timestamp,x,y,yaw\n1,2,x,4'), 'line 2 of'),
        (lambda f: (f / 'poses.csv').write_text('timestamp,x,y,yaw\n2,2,2,4\n1,2,3,4'), 'time 1.0 is not after 2.0'),
        (lambda f: (f / 'poses.csv').write_text('timestamp,x,y,yaw'), 'holds no poses'),
        (lambda f: (f / 'poses.csv').unlink(), 'poses.csv does not exist'),
        (lambda f: (f / 'out').write_text(''), 'is a file: give a folder'),
    ],
)
def test_what_the_tool_cannot_use_is_said_before_any_work(frames, harm, message):
    harm(frames)
    tool = predict(frames, '--poses', frames / 'poses.csv')
    assert tool.returncode == 1
    assert tool.last_line.startswith('error: ') and message in tool.last_line
    assert 'Traceback' not in tool.output and 'weights of' not in tool.output
