"""Data shared by all tests: a tiny synthetic world, and the folder with real nuScenes frames where it exists."""

import pathlib

import pytest
from installation import install

from bevformer_plugin.datasets import create_nuscenes_infos
from bevformer_plugin.datasets.synthetic import create_synthetic_world

SYNTHETIC_WORLD = {'scenes_train': 2, 'scenes_val': 2, 'frames': 6, 'seed': 0, 'image_size': (200, 112)}


@pytest.fixture(scope='session')
def synthetic_root(tmp_path_factory):
    """Dataroot of a tiny v1.0-mini world: 2 + 2 scenes of 6 keyframes, 200 x 112 pixels. Read only."""
    root = tmp_path_factory.mktemp('data') / 'synthetic'
    create_synthetic_world(root, **SYNTHETIC_WORLD, version='v1.0-mini', workers=2)
    return root


@pytest.fixture(scope='session')
def info_files(synthetic_root, tmp_path_factory):
    """Info files of the synthetic world by split; paths in them are relative to ``synthetic_root``."""
    return create_nuscenes_infos(synthetic_root, 'v1.0-mini', out_dir=tmp_path_factory.mktemp('infos'), workers=1)


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
