"""Rigs and drives that the tests of this folder share."""

import pytest

from tests.deployment.rigs import real_drives, rendered_drive


@pytest.fixture(scope='session')
def drives(shared_dir):
    """The real scenes by name."""
    root = shared_dir / 'real' / 'nuscenes'
    if not root.is_dir():
        pytest.skip(f'{root} is not on this machine')
    return real_drives(root)


@pytest.fixture(scope='session')
def rendered():
    """Rig, images and planar poses of four rendered frames in which the vehicle turns to the right."""
    return rendered_drive(index=4, frames=range(5, 9))


@pytest.fixture(scope='session')
def world_options(synthetic_root, info_files):
    """Settings that lead the test dataset to the synthetic world."""
    data = {'data_root': str(synthetic_root), 'ann_file': str(info_files['mini_val'])}
    return {f'test_dataloader.dataset.{key}': value for key, value in data.items()}
