"""Models with a map and made-up weights, which tests of own cameras and of exported files share."""

from pathlib import Path

import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from torch import nn

from bevformer_plugin.configuration import load_config
from bevformer_plugin.models import BEVFormer, MapHead
from tests.helpers.repository import CONFIGS

JOINT = CONFIGS / 'bevformer_nano_joint.py'
MAP = CONFIGS / 'bevformer_nano_map.py'


def seeded(cfg: Config) -> BEVFormer:
    """Build the detector of a config with weights from a seed, whose maps have probabilities on both sides of 0.5."""
    torch.manual_seed(0)
    detector = MODELS.build(cfg.model)
    assert isinstance(detector, BEVFormer)
    detector.init_weights()
    head = detector.heads['map']
    assert isinstance(head, MapHead)
    for module in head.decoder.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(module.weight, std=2 / module.weight[0].numel() ** 0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return detector.eval()


def map_config(path: Path = JOINT, protocol: str = 'paper', **options: object) -> Config:
    """Load a config with a map by a protocol."""
    places = ('model.heads.map.protocol', 'test_dataloader.dataset.map_protocol')
    evaluator = 'test_evaluator.1.protocol' if path == JOINT else 'test_evaluator.0.protocol'
    return load_config(path, {**dict.fromkeys((*places, evaluator), protocol), **options})
