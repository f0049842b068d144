"""The published models' names and shapes: all of them become ours, and the way back is the identity."""

import pytest
import torch

from bevformer_plugin.configuration import load_config
from bevformer_plugin.weights import to_ours, to_published
from bevformer_plugin.weights.conversion import expected_state
from bevformer_plugin.weights.files import mismatch
from tests.helpers.reference_files import REFERENCE, manifest, published_weights

NAMES = sorted(path.name.partition('.')[0] for path in REFERENCE.glob('bevformer_*.state_dict.json'))


@pytest.mark.parametrize('name', NAMES)
def test_published_weights_convert_strictly_and_back(name):
    published = published_weights(manifest(name))
    ours = to_ours(published)
    assert mismatch(ours, expected_state(load_config(f'configs/bevformer/{name}.py'))) == ''
    back = to_published(ours)
    assert list(back) == list(published)
    for key, value in published.items():
        assert torch.equal(back[key], value), key
