"""Released configs on the tiny synthetic world."""

import pytest

from bevformer_plugin.configuration import load_config
from tests.helpers.repository import CONFIGS


@pytest.fixture
def load_on_synthetic_world(synthetic_root, info_files):
    """Load a config by its name, with its training set on the synthetic world and settings of that set changed."""

    def load(name, **dataset):
        world = {'ann_file': str(info_files['mini_train']), 'data_root': str(synthetic_root)}
        changes = {f'train_dataloader.dataset.{key}': value for key, value in {**world, **dataset}.items()}
        return load_config(str(CONFIGS / f'{name}.py'), changes)

    return load
