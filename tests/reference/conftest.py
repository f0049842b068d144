"""Models with the published implementation's weights, and its small cases."""

import logging

import numpy as np
import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from bevformer_plugin.weights import to_ours
from tests.helpers.reference_files import REFERENCE, manifest, published_weights
from tests.helpers.repository import CONFIGS

logging.getLogger('mmengine').setLevel(logging.WARNING)


@pytest.fixture(scope='session')
def modules() -> dict[str, torch.Tensor]:
    """Inputs and outputs of the published modules."""
    if not (REFERENCE / 'modules.npz').is_file():
        pytest.skip(f'{REFERENCE} has no modules.npz')
    return {key: torch.from_numpy(value) for key, value in np.load(REFERENCE / 'modules.npz').items()}


@pytest.fixture(scope='session')
def build_published():
    """Build a released config's detector with the published weights in it."""

    def build(name: str) -> torch.nn.Module:
        model = Config.fromfile(CONFIGS / f'{name}.py').model
        model.img_backbone.init_cfg = None
        with DefaultScope.overwrite_default_scope('mmdet3d'):
            detector = MODELS.build(model)
        detector.load_state_dict(to_ours(published_weights(manifest(name))))
        return detector

    return build
