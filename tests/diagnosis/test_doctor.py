"""The page of tools/doctor.py: what is well, what is a note, and what is wrong, for good and for spoilt inputs."""

import os
import pickle
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from bevformer_plugin.configuration import load_config
from bevformer_plugin.datasets.infos import create_nuscenes_infos
from bevformer_plugin.diagnosis.checkpoint import examine_checkpoint, examine_config, examine_test_data
from bevformer_plugin.diagnosis.dataroot import entries_of_tables, examine_dataroot
from bevformer_plugin.diagnosis.page import Page, Verdict, note, ok, wrong
from bevformer_plugin.weights import read_checkpoint, to_published
from tests.helpers.processes import run_tool
from tests.helpers.repository import CONFIGS, NANO_WEIGHTS, REPO

VERSION = 'v1.0-mini'
NANO = str(CONFIGS / 'bevformer_nano.py')
TRAIN, VAL = (f'nuscenes_infos_temporal_{role}.pkl' for role in ('train', 'val'))


@pytest.fixture
def root(copied_root, info_files):
    """A dataroot with tables that a test may change and with info files, newer than the tables."""
    for path in info_files.values():
        shutil.copy(path, copied_root)
    return copied_root


def lines_of(root, version=None):
    return examine_dataroot(Path(root), version)[0]


def texts(lines, verdict):
    return [f'{line.subject}: {line.text}' for line in lines if line.verdict is verdict]


def change_infos(root, change, name=VAL):
    content = pickle.loads((root / name).read_bytes())
    change(content)
    (root / name).write_bytes(pickle.dumps(content))


def older(root):
    """Set the info files back in time by an hour."""
    for path in root.glob('*.pkl'):
        stamp = path.stat().st_mtime - 3600
        os.utime(path, (stamp, stamp))


def test_how_a_page_looks():
    page = Page(
        {'machine': [ok('GPU', 'none')], 'data': [note('infos', 'old'), wrong('images', ValueError('3 missing'))]}
    )
    assert page.text().splitlines() == [
        'machine',
        '  ok    GPU                none',
        'data',
        '  note  infos              old',
        '  WRONG images             3 missing',
        '1 thing is wrong: see the lines with WRONG',
    ]
    assert page.wrong == 1 and Page().text() == 'nothing is wrong'


def test_a_whole_dataroot(root):
    lines, files = examine_dataroot(root, None)
    assert {line.verdict for line in lines} == {Verdict.OK}
    assert [file.path.name for file in files] == [TRAIN, VAL]
    assert any(
        'v1.0-mini mini_val, 2 scenes, 12 samples, CAN-bus rule nearest, boxes in the frame of the lidar' in line.text
        for line in lines
    )


def test_no_root_and_no_tables(tmp_path):
    assert 'no folder at' in texts(lines_of(tmp_path / 'no'), Verdict.WRONG)[0]
    assert 'holds no folder with a sample.json' in texts(lines_of(tmp_path), Verdict.WRONG)[0]


def test_a_table_that_is_missing_and_a_version_that_is(root):
    assert 'holds no v1.0-test' in texts(lines_of(root, 'v1.0-test'), Verdict.WRONG)[0]
    (root / VERSION / 'log.json').unlink()
    assert 'lacks log.json' in texts(lines_of(root), Verdict.WRONG)[0]


def test_images_that_are_missing(root, synthetic_root):
    (root / 'samples').unlink()
    shutil.copytree(synthetic_root / 'samples', root / 'samples', copy_function=os.link)
    shutil.rmtree(root / 'samples' / 'CAM_BACK')
    found = texts(lines_of(root), Verdict.WRONG)
    assert len(found) == 2 and all(
        '12 of 72 are missing or empty (CAM_BACK 12), the first is samples/CAM_BACK' in t for t in found
    )


WRONG_INFOS = [
        (lambda root: change_infos(root, lambda c: c.update(metainfo='v1.0')), "is 'v1.0', not a dict"),
        (lambda root: change_infos(root, lambda c: c['metainfo'].update(frame={})), 'frame in the metainfo of'),
        (lambda root: change_infos(root, lambda c: c['data_list'][0].update(next={})), 'next is {}, not a str'),
        (lambda root: change_infos(root, lambda c: c['data_list'][0].update(images=[])), 'images is [], not a dict'),
        (lambda root: (root / VAL).write_text('infos'), 'not a readable pickle'),
        (lambda root: change_infos(root, lambda c: c['metainfo'].update(info_version='1.0')), 'is of kind bevformer'),
        (lambda root: change_infos(root, lambda c: c['data_list'][0]['can_bus'].pop()), 'not 18 numbers'),
        (lambda root: change_infos(root, lambda c: c['metainfo'].update(can_bus='other')), 'several CAN-bus rules'),
        (lambda root: change_infos(root, lambda c: c['metainfo'].update(frame='vehicle')), 'several frames of boxes'),
        (lambda root: change_infos(root, lambda c: c['metainfo'].update(version='v1.0-trainval')), 'several versions'),
    ]  # fmt: skip


@pytest.mark.parametrize(('spoil', 'message'), WRONG_INFOS)
def test_infos_that_are_wrong(root, spoil, message):
    spoil(root)
    assert [text for text in texts(lines_of(root), Verdict.WRONG) if message in text]


def test_infos_of_another_version_than_asked_for(root):
    shutil.copytree(root / VERSION, root / 'town')
    assert 'the infos are of nuScenes v1.0-mini, not town' in texts(lines_of(root, 'town'), Verdict.WRONG)[0]


def test_infos_older_than_the_tables(root, change_table):
    older(root)
    agreeing = [line for line in lines_of(root) if line.subject == 'age']
    assert [line.verdict for line in agreeing] == [Verdict.OK, Verdict.OK]
    change_table(
        'ego_pose',
        lambda rows: [row['translation'].__setitem__(0, row['translation'][0] + 1) for row in rows] and rows,
    )
    found = texts(lines_of(root), Verdict.WRONG)
    assert len(found) == 2 and all('differs from the tables in ego2global of sample' in text for text in found)
    assert all('tools/create_data.py nuscenes --root' in text for text in found)


def test_infos_of_mmdetection3d_and_without_points_or_can_bus(root):
    change_infos(
        root,
        lambda content: [
            i.update(num_lidar_pts=0, num_radar_pts=0) for e in content['data_list'] for i in e['instances']
        ],
    )
    change_infos(root, lambda content: content['metainfo'].update(can_bus='none'))
    change_infos(root, lambda content: content['metainfo'].update(can_bus='none'), TRAIN)
    stock = {'metainfo': {'dataset': 'nuscenes', 'version': VERSION}, 'data_list': [{'token': 'a', 'images': {}}]}
    (root / 'nuscenes_infos_train.pkl').write_bytes(pickle.dumps(stock))
    lines = lines_of(root)
    notes = '\n'.join(texts(lines, Verdict.NOTE))
    assert not texts(lines, Verdict.WRONG)
    assert "mmdetection3d's, without scenes and poses: tools/create_data.py convert" in notes
    assert "none has LiDAR or radar points: set true_boxes='visibility'" in notes
    assert f'{VAL} is made without it, though' in notes


def test_a_root_without_infos(copied_root):
    lines, entries = entries_of_tables(copied_root, VERSION)
    assert len(entries) == 24 and 'v1.0-mini: 24 of 24 have all their images' in lines[0].text
    assert 'there are none yet: make infos with python tools/create_data.py' in lines[1].text
    (copied_root / 'samples').unlink()
    lines, entries = entries_of_tables(copied_root, VERSION)
    assert entries == [] and '0 of 24 have all their images: unpack samples/' in texts(lines, Verdict.WRONG)[0]


def test_the_real_root(shared_dir):
    lines, entries = entries_of_tables(shared_dir / 'real' / 'nuscenes', VERSION)
    assert [line.verdict for line in lines] == [Verdict.NOTE, Verdict.NOTE] and len(entries) == 5
    assert '5 of 81 have all their images' in lines[0].text


@pytest.fixture(scope='module')
def nano():
    lines, cfg, detector = examine_config(NANO)
    assert [line.verdict for line in lines] == [Verdict.OK] and 'heads: detection, perspective' in lines[0].text
    return cfg, detector


def saved(tmp_path, content):
    torch.save(content, tmp_path / 'some.pth')
    return str(tmp_path / 'some.pth')


def weights():
    return dict(read_checkpoint(str(NANO_WEIGHTS))['state_dict'])


def test_a_checkpoint_of_the_config_and_the_data(nano, root):
    lines, dataset = examine_test_data(nano[0], root)
    assert lines[0].verdict is Verdict.OK and 'images of 320 x 180' in lines[0].text
    found = examine_checkpoint(str(NANO_WEIGHTS), *nano, dataset)
    assert not texts(found, Verdict.WRONG)
    assert "layout: plugin's layout, 232 tensors, all finite" in texts(found, Verdict.OK)
    assert 'weights: are of the model of the config, and loaded whole' in texts(found, Verdict.OK)


def test_data_that_the_config_cannot_use(nano, root):
    (root / VAL).unlink()
    assert 'no info file' in texts(examine_test_data(nano[0], root)[0], Verdict.WRONG)[0]
    cfg = load_config(NANO, {'test_dataloader.dataset.cameras': ['CAM_TOP']})
    shutil.copy(root / TRAIN, root / VAL)
    assert 'no camera CAM_TOP' in texts(examine_test_data(cfg, root)[0], Verdict.WRONG)[0]


def test_a_published_checkpoint(nano, tmp_path):
    path = saved(tmp_path, to_published(weights()))
    assert 'published layout: convert it with' in texts(examine_checkpoint(path, None, None, None), Verdict.WRONG)[0]
    found = texts(examine_checkpoint(path, *nano, None), Verdict.WRONG)[0]
    assert 'published layout, of the model of the config: convert it with python tools/convert_checkpoint.py' in found
    fewer = {name: value for name, value in to_published(weights()).items() if 'reg_branches' not in name}
    found = texts(examine_checkpoint(saved(tmp_path, fewer), *nano, None), Verdict.WRONG)[0]
    assert 'published layout, and of another model than the config' in found


def test_a_bare_backbone(nano, tmp_path):
    bare = {name.removeprefix('img_backbone.'): value for name, value in weights().items() if 'img_backbone' in name}
    lines = examine_checkpoint(saved(tmp_path, bare), *nano, None)
    assert (
        'layout: a backbone that fits the config: a training can start from it (load_from='
        in texts(lines, Verdict.NOTE)[0]
    )
    assert (
        'as of a bare backbone' in texts(examine_checkpoint(saved(tmp_path, bare), None, None, None), Verdict.NOTE)[0]
    )
    lines = examine_checkpoint(saved(tmp_path, {'a': torch.zeros(1)}), *nano, None)
    assert 'has no backbone for this detector' in texts(lines, Verdict.WRONG)[0]


def test_checkpoints_that_are_wrong(nano, tmp_path):
    path = saved(
        tmp_path,
        {name: value for name, value in weights().items() if 'query_embedding' not in name and 'reg' not in name},
    )
    assert 'is of another model' in texts(examine_checkpoint(path, *nano, None), Verdict.WRONG)[0]
    content = {**weights(), 'bev_encoder.x': torch.tensor([float('nan')])}
    assert 'NaN or infinite' in texts(examine_checkpoint(saved(tmp_path, content), None, None, None), Verdict.WRONG)[0]
    (tmp_path / 'some.pth').write_bytes(b'<html>')
    for name in ('some.pth', 'no.pth', ''):
        assert texts(examine_checkpoint(str(tmp_path / name), None, None, None), Verdict.WRONG)


def test_a_config_that_cannot_be_built(tmp_path):
    for text in ('x = (', f'_base_ = [{NANO!r}]\nmodel = dict(img_backbone=dict(depth=7))'):
        path = tmp_path / 'child.py'
        path.write_text(text)
        lines, cfg, detector = examine_config(str(path))
        assert [line.verdict for line in lines] == [Verdict.WRONG] and cfg is detector is None
    assert 'no.py does not exist' in examine_config('no.py')[0][0].text


def _empty_path() -> None:
    os.environ['PATH'] = '/nowhere'
    os.environ.pop('CXX', None)


def _other_requirements(folder: str) -> None:
    sys.path.insert(0, folder)


def test_the_command_on_everything(root):
    done = run_tool('doctor', '--root', root, '--config', NANO, '--checkpoint', NANO_WEIGHTS)
    assert done.returncode == 0 and done.last_line == 'nothing is wrong', done.output
    titles = [line.split()[0] for line in done.output.splitlines() if line and line[0].isalpha()]
    assert titles == ['machine', 'installation', 'data', 'alignment', 'config', 'checkpoint', 'nothing']
    (root / VERSION / 'log.json').unlink()
    done = run_tool('doctor', '--root', root)
    assert done.returncode == 1 and done.last_line == '1 thing is wrong: see the lines with WRONG'


def test_a_machine_without_a_compiler():
    done = run_tool('doctor', plant=_empty_path)
    assert done.returncode == 0
    assert 'note  compiler           no g++, c++ or clang++' in done.output and 'backend reference' in done.output


def test_packages_of_other_versions(tmp_path):
    folder = tmp_path / 'bevformer_plugin-0.0.1.dist-info'
    folder.mkdir()
    needs = ['torch>=99', 'numpy', 'no-such-package>=1', 'pytest; extra == "dev"']
    lines = [
        'Metadata-Version: 2.1',
        'Name: bevformer_plugin',
        'Version: 0.0.1',
        *(f'Requires-Dist: {need}' for need in needs),
    ]
    (folder / 'METADATA').write_text('\n'.join(lines) + '\n')
    done = run_tool('doctor', plant=partial(_other_requirements, str(tmp_path)))
    assert done.returncode == 1
    assert (
        f'WRONG torch              {torch.__version__} is installed, >=99 needed: pip install "torch>=99"'
        in done.output
    )
    assert 'WRONG no-such-package    is not installed: pip install "no-such-package>=1"' in done.output
    assert 'while version 0.0.1 is installed' in done.output and done.last_line.startswith('2 things are wrong')


def test_an_installation_that_cannot_be_imported(tmp_path):
    (tmp_path / 'mmcv').mkdir()
    (tmp_path / 'mmcv' / '__init__.py').write_text('raise OSError("libcudart.so.12: cannot open shared object file")')
    environment = {**os.environ, 'PYTHONPATH': f'{tmp_path}{os.pathsep}{REPO}'}
    done = subprocess.run(
        [sys.executable, 'tools/doctor.py'], cwd=REPO, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert (
        last.startswith('error: bevformer_plugin cannot be imported (OSError: libcudart.so.12')
        and 'make setup' in last
    )


def test_infos_made_anew_pass(copied_root):
    create_nuscenes_infos(copied_root, VERSION, workers=1)
    assert not texts(lines_of(copied_root), Verdict.WRONG)
