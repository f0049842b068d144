"""Detectors of released configs on the tiny synthetic world, and steps of them on any device."""

from pathlib import Path

import torch
from mmdet3d.registry import DATASETS, MODELS
from mmdet3d.structures import Det3DDataSample
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from torch import Tensor

from bevformer_plugin.configuration import load_config
from bevformer_plugin.models import BEVFormer
from bevformer_plugin.seeding import seeded_generators
from tests.helpers.repository import CONFIGS

PROJECTS = CONFIGS.parents[1] / 'projects'
MODELS_OF = {
    'nano': CONFIGS / 'bevformer_nano.py',
    'nano with a map': CONFIGS / 'bevformer_nano_joint.py',
    'BEVFormerV2': PROJECTS / 'bevformer_v2' / 'bevformer_v2_nano.py',
    'deformable convolutions': CONFIGS / 'bevformer_nano.py',
}
CHANGES_OF: dict[str, dict[str, object]] = {
    'deformable convolutions': {
        'model.img_backbone.depth': 50,
        'model.img_backbone.dcn': {'type': 'DCNv2', 'deform_groups': 1, 'fallback_on_stride': False},
        'model.img_backbone.stage_with_dcn': (False, False, True),
        'model.img_neck.in_channels': [128, 256],
    }
}


def small_world_config(name: str, root: Path, infos: dict[str, Path]) -> Config:
    """A config of small images and a small BEV, whose data are the synthetic world."""
    parts = {f'{part}_dataloader.dataset': split for part, split in (('train', 'mini_train'), ('val', 'mini_val'))}
    changes: dict[str, object] = {'model.bev_grid': (16, 16), 'model.heads.detection.queries.num_query': 40}
    for part, split in parts.items():
        changes |= {f'{part}.data_root': str(root), f'{part}.ann_file': str(infos[split])}
        changes |= {f'{part}.image_size': (160, 96)}
    return load_config(str(MODELS_OF[name]), changes | CHANGES_OF.get(name, {}))


def build(cfg: Config, **changes: object) -> BEVFormer:
    """The config's detector with seeded weights, some of its arguments changed."""
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        detector = MODELS.build({**cfg.model, **changes})
    detector.init_weights()
    return detector


def items(cfg: Config, part: str, indices: list[int]) -> list[dict]:
    """Items of the part's dataset, whose random changes follow from a seed."""
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        dataset = DATASETS.build(cfg[f'{part}_dataloader'].dataset)
    with seeded_generators(0):
        return [dataset[index] for index in indices]


def training_step(detector: BEVFormer, optimizer: torch.optim.Optimizer, batch: list[dict]) -> dict[str, Tensor]:
    """Take a step of the optimizer, and return the losses before it."""
    detector.train()
    data = detector.data_preprocessor(pseudo_collate([_copied(item) for item in batch]), True)
    loss, values = detector.parse_losses(detector(**data, mode='loss'))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(detector.parameters(), 10)
    optimizer.step()
    optimizer.zero_grad()
    return values


def optimizer_of(detector: BEVFormer, cfg: Config) -> torch.optim.Optimizer:
    """The config's optimizer, not fused, which only some devices have."""
    wrapper = {'type': 'OptimWrapper', 'optimizer': {**cfg.optim_wrapper.optimizer, 'fused': False}}
    return build_optim_wrapper(detector, wrapper).optimizer


@torch.no_grad()
def stream(detector: BEVFormer, scene: list[dict]) -> list[Det3DDataSample]:
    """Predict the frames of a scene one after the other; the detector stays in eval mode and keeps its history."""
    if detector.training:
        detector.eval()
    predicted = []
    for item in scene:
        batch = pseudo_collate([_copied(item)])
        predicted.extend(detector(**detector.data_preprocessor(batch), mode='predict'))
    return predicted


def _copied(item: dict) -> dict:
    """Copy an item, since the preprocessor writes into its data sample."""
    return {'inputs': dict(item['inputs']), 'data_samples': item['data_samples'].clone()}


def losses_of(detector: BEVFormer, batch: list[dict]) -> dict[str, Tensor]:
    """The losses that are trained on, with their graph."""
    detector.train()
    data = detector.data_preprocessor(pseudo_collate([_copied(item) for item in batch]), True)
    return {name: loss for name, loss in detector(**data, mode='loss').items() if 'loss' in name}


def gradients_of(detector: BEVFormer, batch: list[dict]) -> dict[str, Tensor]:
    """The gradients of the sum of the losses, by parameter."""
    sum(losses_of(detector, batch).values()).backward()
    return {name: weight.grad for name, weight in detector.named_parameters() if weight.grad is not None}
