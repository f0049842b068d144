"""Configs, batches and scenes that the tests of this folder share."""

import pytest

from tests.gpu.training_steps import MODELS_OF, items, small_world_config


@pytest.fixture(scope='session')
def small_configs(synthetic_root, info_files):
    """Configs by name, on the synthetic world. Read only."""
    return {name: small_world_config(name, synthetic_root, info_files) for name in MODELS_OF}


@pytest.fixture(scope='session')
def training_batches(small_configs):
    """Per config a batch of two samples that have history."""
    return {name: items(cfg, 'train', [1, 2]) for name, cfg in small_configs.items()}


@pytest.fixture(scope='session')
def scenes(small_configs):
    """Per config the first frames of a validation scene."""
    return {name: items(cfg, 'val', [0, 1, 2]) for name, cfg in small_configs.items()}
