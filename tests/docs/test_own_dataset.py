"""The guide to one's own data: its code is run, and the tables that it writes say what the original ones say."""

import re

import numpy as np
import pytest

from bevformer_plugin.configuration import load_config, parse_config_options
from bevformer_plugin.datasets.infos import create_nuscenes_infos, load_infos
from bevformer_plugin.diagnosis import check_data
from tests.helpers.repository import REPO

GUIDES = ('own_dataset.md', 'own_dataset_zh-CN.md')
BLOCK = re.compile(r'```(python|shell|text)\n(.*?)```', re.DOTALL)


def blocks(name: str, kind: str) -> list[str]:
    text = (REPO / 'docs' / name).read_text(encoding='utf-8')
    return [code for found, code in BLOCK.findall(text) if found == kind]


def run_guide(name, synthetic_root, folder, monkeypatch):
    """Run the guide's code in a folder whose data/raw is the synthetic world, and return its new dataroot."""
    (folder / 'data').mkdir()
    (folder / 'data' / 'raw').symlink_to(synthetic_root)
    monkeypatch.chdir(folder)
    namespace: dict = {}
    for code in blocks(name, 'python'):
        exec(compile(code, name, 'exec'), namespace)
    return folder / 'data' / 'own'


@pytest.fixture
def own_root(synthetic_root, tmp_path, monkeypatch):
    return run_guide(GUIDES[0], synthetic_root, tmp_path, monkeypatch)


def test_both_languages_have_the_same_code():
    for kind in ('python', 'shell', 'text'):
        assert blocks(GUIDES[0], kind) == blocks(GUIDES[1], kind)
    english, chinese = ((REPO / 'docs' / name).read_text(encoding='utf-8') for name in GUIDES)
    assert english.count('\n## ') == chinese.count('\n## ') == 3 and english.count('\n| ') == chinese.count('\n| ')


def test_the_writer_has_sixty_lines():
    lines = [line for line in blocks(GUIDES[0], 'python')[1].splitlines() if line.strip()]
    assert 50 <= len(lines) <= 60


def test_the_check_says_what_the_guide_shows(own_root):
    report = check_data(own_root, 'town', workers=1)
    assert report.text().splitlines()[-1] == blocks(GUIDES[0], 'text')[0].strip()


def test_infos_are_those_of_the_original_tables(own_root, info_files):
    """Poses, cameras, times and boxes of every keyframe; attributes and visibility the records do not have."""
    files = create_nuscenes_infos(own_root, 'town', workers=1)
    entries = {entry['timestamp']: entry for path in files.values() for entry in load_infos(path)['data_list']}
    originals = [entry for path in info_files.values() for entry in load_infos(path)['data_list']]
    assert set(files) == {'my_train', 'my_val'} and len(entries) == len(originals) == 24
    for wanted in originals:
        entry = entries[wanted['timestamp']]
        assert bool(entry['prev']) == bool(wanted['prev']) and entry['frame_idx'] == wanted['frame_idx']
        np.testing.assert_allclose(entry['ego2global'], wanted['ego2global'], atol=1e-9)
        np.testing.assert_allclose(entry['lidar_points']['lidar2ego'], wanted['lidar_points']['lidar2ego'], atol=1e-9)
        assert list(entry['images']) == list(wanted['images'])
        for camera, image in entry['images'].items():
            other = wanted['images'][camera]
            np.testing.assert_allclose(image['lidar2cam'], other['lidar2cam'], atol=1e-9)
            assert {key: image[key] for key in ('img_path', 'cam2img', 'timestamp', 'width', 'height')} == {
                key: other[key] for key in ('img_path', 'cam2img', 'timestamp', 'width', 'height')
            }
        boxes, others = (_boxes(some['instances']) for some in (entry, wanted))
        assert boxes.shape == others.shape and len(boxes) > 10
        np.testing.assert_allclose(boxes, others, atol=1e-6)


def _boxes(instances: list[dict]) -> np.ndarray:
    """Label, points, box and velocity of every instance, in an order that does not depend on the tables'."""
    rows = [
        (item['bbox_label_3d'], item['num_lidar_pts'], *item['bbox_3d'], *np.nan_to_num(item['velocity']))
        for item in instances
    ]
    return np.array(sorted(rows, key=lambda row: tuple(np.round(row, 4))))


def test_the_training_command_has_known_settings():
    command = blocks(GUIDES[0], 'shell')[-1].replace('\\\n', ' ').split()
    cfg = load_config(command[2], parse_config_options(command[command.index('--cfg-options') + 1 :]))
    assert cfg.train_dataloader.dataset.data_root == cfg.val_evaluator.data_root == 'data/own'
    assert cfg.test_evaluator.version == 'town'
