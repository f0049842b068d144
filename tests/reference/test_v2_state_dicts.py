"""The published BEVFormerV2s' names and shapes: all of them become ours, and the way back is the identity."""

import pytest
import torch

from bevformer_plugin.configuration import load_config
from bevformer_plugin.weights import to_ours, to_published
from bevformer_plugin.weights.conversion import expected_state
from tests.helpers.reference_files import V2, published_weights, v2_manifest
from tests.helpers.repository import CONFIGS

NAMES = sorted(path.name.partition('.')[0] for path in V2.glob('bevformerv2_*.state_dict.json'))


@pytest.mark.parametrize('name', NAMES)
def test_v2_weights_convert_strictly_and_back(name):
    """With the head for training, as checkpoints have it, and without."""
    config = str(CONFIGS.parent / 'bevformer_v2' / f'{name.removeprefix("bevformerv2_")}_24e.py')
    bare, head = v2_manifest(name), v2_manifest('fcos3d_bbox_head')
    for shapes, options in (({**bare, **head}, {}), (bare, {'model.heads.perspective': None})):
        published = {key: torch.empty(shape, device='meta') for key, shape in shapes.items()}
        ours, expected = to_ours(published), expected_state(load_config(config, options))
        assert {key: value.shape for key, value in ours.items()} == {key: v.shape for key, v in expected.items()}
        back = to_published(ours)
        assert {key: list(value.shape) for key, value in back.items()} == shapes and list(back) == list(shapes)


@pytest.mark.parametrize('name', NAMES[-1:])
def test_v2_values_come_back(name):
    shapes = {
        key: shape for key, shape in v2_manifest(name).items() if 'branches' in key or 'fusion.layer_norm' in key
    }
    published = published_weights(shapes)
    back = to_published(to_ours(published))
    assert all(torch.equal(back[key], value) for key, value in published.items())
