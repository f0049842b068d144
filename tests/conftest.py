"""Data shared by all tests: a tiny synthetic world, and the folder with real nuScenes frames where it exists."""

import json
import pathlib
import pickle
import shutil

import pytest
import torch
from nuscenes import NuScenes

from bevformer_plugin.datasets import create_nuscenes_infos
from bevformer_plugin.ops import set_attention_backend, set_deform_conv_backend
from bevformer_plugin.synthetic import create_synthetic_world
from tests.helpers.installation import install

SYNTHETIC_WORLD = {'scenes_train': 2, 'scenes_val': 2, 'frames': 6, 'seed': 0, 'image_size': (200, 112)}


@pytest.fixture(autouse=True)
def _backends_of_each_test():
    """A backend that a test chooses is chosen for the whole process: the next test starts without."""
    yield
    set_attention_backend(None)
    set_deform_conv_backend(None)


@pytest.fixture(
    params=[
        'cpu',
        pytest.param(
            'cuda',
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU that PyTorch can use is here'),
            ],
        ),
    ]
)
def device(request, monkeypatch):
    """The CPU, and in ``make test-gpu`` a GPU that computes float32 without TensorFloat-32."""
    if request.param == 'cuda':
        monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)
        monkeypatch.setattr(torch.backends.cuda.matmul, 'allow_tf32', False)
    return torch.device(request.param)


@pytest.fixture(scope='session')
def synthetic_root(tmp_path_factory):
    """Dataroot of a tiny v1.0-mini world: 2 + 2 scenes of 6 keyframes, 200 x 112 pixels. Read only."""
    root = tmp_path_factory.mktemp('data') / 'synthetic'
    create_synthetic_world(root, **SYNTHETIC_WORLD, version='v1.0-mini', workers=2)
    return root


@pytest.fixture
def copied_root(synthetic_root, tmp_path):
    """The synthetic root with tables that a test may change; images, points, maps and CAN bus are links."""
    root = tmp_path / 'root'
    root.mkdir()
    for folder in synthetic_root.iterdir():
        if folder.name != 'v1.0-mini' and folder.is_dir():
            (root / folder.name).symlink_to(folder)
    shutil.copytree(synthetic_root / 'v1.0-mini', root / 'v1.0-mini')
    return root


@pytest.fixture
def change_table(copied_root):
    """Change a table of ``copied_root``: ``change(rows)`` changes them in place or returns new ones."""

    def apply(name, change):
        path = copied_root / 'v1.0-mini' / f'{name}.json'
        rows = json.loads(path.read_text())
        changed = change(rows)
        path.write_text(json.dumps(rows if changed is None else changed))

    return apply


@pytest.fixture
def take_out_lidar(change_table):
    """Take LIDAR_TOP out of the tables of ``copied_root``."""

    def apply():
        rows = {}
        change_table('sensor', lambda its: rows.update(sensor=[row for row in its if row['modality'] == 'lidar']))
        lidars = {row['token'] for row in rows['sensor']}
        change_table(
            'calibrated_sensor',
            lambda its: rows.update(mounts={row['token'] for row in its if row['sensor_token'] in lidars}),
        )
        for table, key in (('sample_data', 'calibrated_sensor_token'), ('calibrated_sensor', 'token')):
            change_table(table, lambda its, key=key: [row for row in its if row[key] not in rows['mounts']])
        change_table('sensor', lambda its: [row for row in its if row['token'] not in lidars])

    return apply


@pytest.fixture(scope='session')
def info_files(synthetic_root, tmp_path_factory):
    """Info files of the synthetic world by split; paths in them are relative to ``synthetic_root``."""
    return create_nuscenes_infos(synthetic_root, 'v1.0-mini', out_dir=tmp_path_factory.mktemp('infos'), workers=1)


@pytest.fixture(scope='session')
def read_infos(info_files):
    """A fresh copy of the infos of 'mini_train' or 'mini_val', which a test may change."""
    return lambda split: pickle.loads(info_files[split].read_bytes())


@pytest.fixture(scope='session')
def tables(synthetic_root):
    """The devkit's reader of the synthetic world. Read only."""
    return NuScenes('v1.0-mini', str(synthetic_root), verbose=False)


@pytest.fixture(scope='session')
def installed_python(tmp_path_factory):
    """Interpreter of a new environment with the plugin installed from a wheel; it shares all other packages."""
    return install(tmp_path_factory.mktemp('installed'))


@pytest.fixture(scope='session')
def shared_dir():
    """Folder with real nuScenes frames and reference numbers; it is not part of the repository."""
    folder = pathlib.Path(__file__).resolve().parents[1] / '..' / 'shared'
    if not folder.is_dir():
        pytest.skip(f'{folder} with real nuScenes material is not on this machine')
    return folder.resolve()
