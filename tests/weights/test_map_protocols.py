"""Weights that were trained on maps by one protocol against a config with another, of tensors of the same shapes."""

import pytest
from torch.utils.data import Dataset

from bevformer_plugin.configuration import load_config
from bevformer_plugin.weights import check_checkpoint
from tests.helpers.repository import CONFIGS


class Empty(Dataset):
    """A dataset that tells nothing of itself."""

    def __init__(self):
        self.metainfo: dict[str, object] = {}


def test_weights_of_another_map_protocol_are_refused():
    paper = load_config(CONFIGS / 'bevformer_nano_joint.py')
    lss = load_config(CONFIGS / 'bevformer_nano_joint.py', {'model.heads.map.protocol': 'lss'})
    content = {'meta': {'config': paper.pretty_text, 'dataset_meta': {}}}
    check_checkpoint(paper, Empty(), 'weights.pth', content)
    with pytest.raises(ValueError, match=r'cannot do without: model\.heads\.map\.protocol was paper, is lss'):
        check_checkpoint(lss, Empty(), 'weights.pth', content)
