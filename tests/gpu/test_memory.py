"""Memory of training steps on a GPU, float32, batch 1, against what the published README tells of theirs."""

import pytest
import torch

from bevformer_plugin.benchmark.memory import GIB, training_peak_memory
from bevformer_plugin.benchmark.worlds import make_world
from bevformer_plugin.configuration import load_config
from tests.helpers.repository import CONFIGS

PUBLISHED = {'bevformer_tiny': 6.5, 'bevformer_small': 10.5, 'bevformer_base': 28.5}  # GB


@pytest.fixture(scope='module')
def large_images(tmp_path_factory):
    """A small world of 1600 x 900 pixels."""
    return make_world(tmp_path_factory.mktemp('memory') / 'world')


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU that PyTorch can use is here')
@pytest.mark.parametrize('name', PUBLISHED)
def test_training_steps_need_less_than_published(large_images, name):
    cfg = load_config(str(CONFIGS / f'{name}.py'), {'optim_wrapper.type': 'OptimWrapper'})
    changes = {'train_dataloader.dataset.data_root': large_images, 'model.img_backbone.init_cfg': None}
    peak = training_peak_memory(cfg, steps=2, changes=changes).peak
    assert 0.5 * GIB < peak < PUBLISHED[name] * 1e9
