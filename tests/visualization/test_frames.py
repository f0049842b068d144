"""Keyframes and their boxes."""

import json
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image

from bevformer_plugin.visualization import FrameSource


def test_submission_boxes_come_back_to_the_lidar_frame(source):
    compared = 0
    for token in source.infos:
        frame = source.frame(token)
        assert len(frame.predictions) == len(frame.truth)
        for values, name in zip(frame.truth.values, frame.truth.names, strict=True):
            distance = np.linalg.norm(frame.predictions.values[:, :3] - values[:3], axis=-1)
            found = frame.predictions.values[distance.argmin()]
            assert frame.predictions.names[distance.argmin()] == name
            np.testing.assert_allclose(found[:6], values[:6], atol=1e-3)
            np.testing.assert_allclose(np.exp(1j * found[6]), np.exp(1j * values[6]), atol=1e-3)
            np.testing.assert_allclose(found[7:], values[7:], atol=0.02)
            compared += 1
    assert compared > 100


def test_predictions_are_in_score_order(source, perfect_results, synthetic_root, info_files, tmp_path):
    content = json.loads(perfect_results.read_text())
    token, entries = next((token, entries) for token, entries in content['results'].items() if len(entries) > 2)
    for score, entry in enumerate(entries):
        entry['detection_score'] = score / len(entries)
    path = tmp_path / 'results.json'
    path.write_text(json.dumps(content))
    boxes = FrameSource(synthetic_root, info_files['mini_val'], path).frame(token).predictions
    assert boxes.names[0] == entries[-1]['detection_name']
    assert (np.diff(boxes.scores) < 0).all()
    assert len(boxes.select(boxes.scores >= 0.5)) == len(entries) // 2


def test_scenes_are_in_time_order(source):
    info = next(iter(source.infos.values()))
    tokens = source.tokens_of_scene(info['scene_name'])
    assert tokens == source.tokens_of_scene(info['scene_token'])
    assert [source.infos[token]['frame_idx'] for token in tokens] == list(range(6))
    assert source.infos[tokens[0]]['next'] == tokens[1]


def test_lidar_points_are_optional(source, tmp_path):
    frame = source.frame(next(iter(source.infos)))
    assert frame.points().shape[1] == 5
    assert replace(frame, root=tmp_path).points() is None
    path = tmp_path / frame.info['lidar_points']['lidar_path']
    path.parent.mkdir(parents=True)
    np.zeros((3, 4), np.float32).tofile(path)
    with pytest.raises(ValueError, match=r'\(48 bytes\) is no LiDAR scan of 5 float32 numbers a point'):
        replace(frame, root=tmp_path).points()


def test_bad_input_is_named(source, perfect_results, synthetic_root, info_files, tmp_path):
    with pytest.raises(ValueError, match=r'no sample abc in the infos; the first of their 12'):
        source.frame('abc')
    with pytest.raises(ValueError, match=r'no scene scene-9999 in the infos; they hold 2: scene-'):
        source.tokens_of_scene('scene-9999')
    with pytest.raises(FileNotFoundError, match='no dataroot nowhere'):
        FrameSource('nowhere', info_files['mini_val'])
    with pytest.raises(FileNotFoundError, match=r'missing\.pkl'):
        FrameSource(synthetic_root, tmp_path / 'missing.pkl')
    content = json.loads(perfect_results.read_text())
    missing = next(iter(content['results']))
    del content['results'][missing]
    (tmp_path / 'results.json').write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf'lacks 1 of the 12 samples.*{missing}'):
        FrameSource(synthetic_root, info_files['mini_val'], tmp_path / 'results.json')


def test_missing_and_broken_images_are_named(source, tmp_path):
    frame = source.frame(next(iter(source.infos)))
    path = frame.info['images']['CAM_FRONT']['img_path']
    copy = replace(frame, root=tmp_path)
    with pytest.raises(FileNotFoundError, match=path):
        copy.image('CAM_FRONT')
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_bytes(b'not a picture')
    with pytest.raises(ValueError, match=path):
        copy.image('CAM_FRONT')
    shutil.copy(source.root / path, tmp_path / path)
    assert copy.image('CAM_FRONT').shape == (112, 200, 3)


@pytest.mark.parametrize(
    ('spoil', 'message'),
    [
        (
            lambda path: cv2.imwrite(str(path), np.zeros((56, 100, 3), np.uint8)),
            'of sample {token} .CAM_FRONT.: the calibration is for 200 x 112, the file is 100 x 56: put the images',
        ),
        (
            lambda path: path.write_bytes(cv2.imencode('.png', np.full((112, 200, 3), 999, np.uint16))[1].tobytes()),
            'has 16 bits per colour .largest value 999., images have 8',
        ),
        (
            lambda path: Image.new('CMYK', (200, 112)).save(path, 'jpeg'),
            'has 4 colour components, as of CMYK',
        ),
        (
            lambda path: path.write_bytes(cv2.imencode('.png', np.zeros((112, 200, 4), np.uint8))[1].tobytes()),
            'is transparent in places',
        ),
        (lambda path: path.write_bytes(path.read_bytes()[:-400]), 'is cut short'),
    ],
)
def test_images_that_training_refuses_are_not_drawn(source, tmp_path, spoil, message):
    frame = source.frame(next(iter(source.infos)))
    path = tmp_path / frame.info['images']['CAM_FRONT']['img_path']
    path.parent.mkdir(parents=True)
    shutil.copy(source.root / frame.info['images']['CAM_FRONT']['img_path'], path)
    spoil(path)
    with pytest.raises(ValueError, match=message.format(token=frame.info['token'])):
        replace(frame, root=tmp_path).image('CAM_FRONT')
