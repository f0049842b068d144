"""Picture files, and the command that writes them."""

import runpy
import sys

import cv2
import numpy as np
import pytest

from bevformer_plugin.visualization import (
    FrameSource,
    check_folder,
    draw_best_and_worst,
    draw_frame,
    draw_sample,
    draw_scene,
)
from tests.helpers.info_files import write_infos
from tests.helpers.repository import REPO

TOOL = REPO / 'tools/visualize.py'


@pytest.fixture
def infos(read_infos):
    return read_infos('mini_val')


@pytest.fixture
def source_of(synthetic_root, tmp_path):
    """Keyframes of changed infos, without results."""

    def make(infos):
        return FrameSource(synthetic_root, write_infos(tmp_path / 'infos.pkl', infos))

    return make


def test_sample_without_results(source_of, infos, tmp_path):
    source = source_of(infos)
    path = draw_sample(source, infos['data_list'][2]['token'], tmp_path)
    entry = infos['data_list'][2]
    assert path == tmp_path / f'{entry["scene_name"]}_002_{entry["token"][:8]}.png'
    picture = cv2.imread(str(path))
    assert picture.shape[1] == 1920
    # The front camera is the second picture of the first row.
    shown, image = picture[70:400, 650:1270], source.frame(entry['token']).image('CAM_FRONT')
    assert np.abs(shown.mean((0, 1)) - image.mean((0, 1))).max() < 12


@pytest.mark.parametrize('cameras', [['CAM_BACK'], ['CAM_FRONT', 'CAM_FRONT_LEFT', 'CAM_BACK', 'CAM_BACK_RIGHT']])
def test_any_number_of_cameras(source_of, infos, cameras):
    entry = infos['data_list'][0]
    entry['images'] = {camera: entry['images'][camera] for camera in cameras}
    entry['instances'] = []  # and a keyframe without boxes
    picture = draw_frame(source_of({**infos, 'data_list': [entry]}).frame(entry['token']))
    assert picture.shape[1] == 1920
    rows = -(-len(cameras) // 3)
    assert rows * 350 < picture.shape[0] - 940 < rows * 370


def test_scene_leaves_out_frames_without_images(source_of, infos, tmp_path):
    scene = infos['data_list'][0]['scene_name']
    infos['data_list'] = infos['data_list'][:3]
    infos['data_list'][1]['images']['CAM_BACK']['img_path'] = 'samples/CAM_BACK/gone.jpg'
    *pictures, video = draw_scene(source_of(infos), scene, tmp_path)
    assert [path.name.split('_')[1] for path in pictures] == ['000', '002']
    capture = cv2.VideoCapture(str(video))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 2
    shown, still = capture.read()[1], cv2.imread(str(pictures[0]))
    assert shown.shape == still.shape
    assert np.abs(shown.astype(float) - still).mean() < 4
    assert not list(tmp_path.glob('.*'))
    for entry in infos['data_list']:
        entry['images']['CAM_BACK']['img_path'] = 'samples/CAM_BACK/gone.jpg'
    with pytest.raises(FileNotFoundError, match=rf'no keyframe of {scene} could be drawn.*gone\.jpg'):
        draw_scene(source_of(infos), scene, tmp_path)


def test_scene_with_an_image_that_training_refuses_is_not_drawn(source_of, infos, tmp_path):
    infos['data_list'][1]['images']['CAM_BACK'].update(width=400, height=224)  # the file is half as large
    with pytest.raises(ValueError, match=r'CAM_BACK\): the calibration is for 400 x 224, the file is 200 x 112'):
        draw_scene(source_of(infos), infos['data_list'][0]['scene_name'], tmp_path)


@pytest.mark.parametrize('score_thr', [float('nan'), 2.0, -0.1])
def test_thresholds_that_no_score_has_are_refused(source, tmp_path, score_thr):
    with pytest.raises(ValueError, match=rf'score threshold must be a number from 0 to 1, .* not {score_thr}'):
        draw_sample(source, next(iter(source.infos)), tmp_path, score_thr)
    assert not list(tmp_path.iterdir())


def test_no_sample_is_among_best_and_worst(source, tmp_path):
    paths = draw_best_and_worst(source, 1, 2, tmp_path)
    assert [path.name.rsplit('_scene', 1)[0] for path in paths] == ['best_01', 'worst_01', 'worst_02']
    assert len({path.name.rsplit('_', 1)[1] for path in paths}) == 3


def test_folders_are_not_overwritten(tmp_path):
    folder = check_folder(tmp_path / 'a' / 'b')
    assert not folder.parent.exists()  # a refusal after this check leaves nothing behind
    folder.mkdir(parents=True)
    check_folder(folder)  # empty
    (folder / 'x.png').touch()
    with pytest.raises(FileExistsError, match='--overwrite'):
        check_folder(folder)
    assert check_folder(folder, overwrite=True) == folder
    with pytest.raises(NotADirectoryError, match=r'x\.png is a file'):
        check_folder(folder / 'x.png')


def test_command(synthetic_root, info_files, perfect_results, infos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        'sys.argv',
        [
            str(word)
            for word in (
                TOOL,
                '--root',
                synthetic_root,
                '--infos',
                info_files['mini_val'],
                '--results',
                perfect_results,
                '--out',
                tmp_path / 'pictures',
                '--sample',
                infos['data_list'][0]['token'],
            )
        ],
    )
    runpy.run_path(str(TOOL), run_name='__main__')
    (picture,) = (tmp_path / 'pictures').iterdir()
    assert capsys.readouterr().out.splitlines()[-2:] == ['wrote', f'  {picture}']
    with pytest.raises(SystemExit, match=r'error: .*pictures is not empty: give another folder, or --overwrite'):
        runpy.run_path(str(TOOL), run_name='__main__')
    monkeypatch.setattr('sys.argv', [*sys.argv, '--overwrite', '--score-thr', 'nan'])
    with pytest.raises(SystemExit, match='error: the score threshold must be a number from 0 to 1'):
        runpy.run_path(str(TOOL), run_name='__main__')
