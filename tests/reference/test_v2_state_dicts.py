"""The published BEVFormerV2s' names and shapes: all of them become ours, and the way back is the identity."""

import pytest
import torch

from bevformer_plugin.configuration import load_config
from bevformer_plugin.weights import to_ours, to_published
from bevformer_plugin.weights.conversion import convert_checkpoint, expected_state
from bevformer_plugin.weights.files import load_weights, mismatch
from tests.helpers.reference_files import V2, published_weights, v2_manifest

NAMES = sorted(path.name.partition('.')[0] for path in V2.glob('bevformerv2_*.state_dict.json'))


def config_of(name: str, **options):
    return load_config(f'configs/bevformer_v2/{name.removeprefix("bevformerv2_")}_24e.py', options)


@pytest.mark.parametrize('name', NAMES)
def test_v2_weights_convert_strictly_and_back(name):
    shapes = {**v2_manifest(name), **v2_manifest('fcos3d_bbox_head')}
    published = {key: torch.empty(shape, device='meta') for key, shape in shapes.items()}
    ours = to_ours(published)
    expected = expected_state(config_of(name))
    assert ours.keys() == expected.keys()
    assert all(ours[key].shape == value.shape for key, value in expected.items())
    assert list(to_published(ours)) == list(published)
    bare = {key: value for key, value in ours.items() if not key.startswith('heads.perspective.')}
    assert bare.keys() == expected_state(config_of(name, **{'model.heads.perspective': None})).keys()
