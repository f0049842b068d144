"""Weights that were trained on maps by one protocol against a config with another, of tensors of the same shapes."""

import pytest
import torch
from mmdet3d.registry import MODELS
from torch.utils.data import Dataset

from bevformer_plugin.configuration import load_config
from bevformer_plugin.weights import check_checkpoint, load_content
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


def test_one_task_of_a_joint_model_is_loaded_alone_and_not_the_other_way_round():
    joint, alone, of_map = (
        load_config(CONFIGS / f'bevformer_nano_{name}.py', options)
        for name, options in (('joint', {}), ('joint', {'model.heads.map': None}), ('map', {}))
    )
    whole = MODELS.build(joint.model)
    content = {'meta': {'config': joint.pretty_text, 'dataset_meta': {}}, 'state_dict': whole.state_dict()}
    for cfg in (alone, of_map):
        check_checkpoint(cfg, Empty(), 'joint.pth', content)
        part = MODELS.build(cfg.model)
        load_content(part, content, 'joint.pth')
        assert set(part.heads) < set(whole.heads)
        assert all(torch.equal(value, content['state_dict'][name]) for name, value in part.state_dict().items())
        of_part = {'meta': {'config': cfg.pretty_text, 'dataset_meta': {}}, 'state_dict': part.state_dict()}
        check_checkpoint(joint, Empty(), 'part.pth', of_part)
        with pytest.raises(ValueError, match=r'part.pth is of another model: \d+ missing \(first: heads\.'):
            load_content(whole, of_part, 'part.pth')
