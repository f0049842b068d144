"""The config of the released checkpoint, and what is said of weights."""

import logging

import pytest
from mmengine.logging import MMLogger

from bevformer_plugin.configuration import load_config


@pytest.fixture
def nano():
    """``configs/bevformer/bevformer_nano.py``."""
    return load_config('configs/bevformer/bevformer_nano.py')


@pytest.fixture
def log(caplog):
    """What is logged; MMEngine's logger does not propagate."""
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO)
    yield caplog
    logger.removeHandler(caplog.handler)
