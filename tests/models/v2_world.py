"""A released BEVFormerV2, shrunk until a step takes milliseconds, on the synthetic world."""

from pathlib import Path

import numpy as np
import torch
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from torch import nn

from bevformer_plugin.configuration import load_config
from bevformer_plugin.datasets import NuScenesTemporalDataset
from tests.helpers.repository import CONFIGS

BEV_GRID = (12, 12)
RANGE = [-51.2, -51.2, -5.0, 51.2, 51.2, 3.0]
CROP = 32  # rows of the world's 112
NORM = dict(type='BN', requires_grad=True)
SMALL = dict(num_heads=4, feedforward_channels=48, dropout=0.0)


def shrunk_config(name: str, offsets: list[int], groups: int = 2) -> Config:
    """A config of ``configs/bevformer_v2`` for other frames, with plain batch norm."""
    cfg = load_config(str(CONFIGS.parent / 'bevformer_v2' / f'{name}_24e.py'))
    cfg.merge_from_dict(
        {
            'model.frame_offsets': offsets,
            'model.bev_grid': BEV_GRID,
            'model.grid_mask': None,
            'model.img_backbone.depth': 18,
            'model.img_backbone.base_channels': 4,
            'model.img_backbone.norm_cfg': NORM,
            'model.img_neck.in_channels': [8, 16, 32],
            'model.img_neck.out_channels': 32,
            'model.bev_encoder': dict(SMALL, encoder=dict(num_layers=1)),
            'model.heads.detection': dict(
                SMALL, decoder=dict(num_layers=2), queries=dict(num_query=20, num_groups=groups)
            ),
            'model.heads.perspective': dict(num_convs=1, norm_cfg=NORM),
        }
    )
    cfg.model.bev_fusion = None if len(offsets) == 1 else dict(type='BEVFusion', inter_channels=32, norm_cfg=NORM)
    cfg.train_dataloader.dataset.frame_offsets = offsets
    pipelines = cfg.train_dataloader.dataset.pipeline, cfg.val_dataloader.dataset.pipeline
    for transform in (*pipelines[0], *pipelines[1]):
        if transform.type == 'CropMultiView':
            transform.top = CROP
        elif transform.type == 'RandomResizeMultiView':
            transform.heights = [64, 80, 97]
    return cfg


def build(cfg: Config, seed: int = 0) -> nn.Module:
    """The config's detector with seeded weights and statistics, of which none is constant."""
    torch.manual_seed(seed)
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        model = MODELS.build(cfg.model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(('bev_encoder.', 'heads.detection.')):
                parameter.add_(
                    torch.randn_like(parameter) * (parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1)
                )
        for name, buffer in model.named_buffers():
            if name.endswith('running_mean'):
                buffer.normal_(std=0.1)
            elif name.endswith('running_var'):
                buffer.uniform_(0.5, 1.5)
    return model


def without_batch_statistics(model: nn.Module) -> nn.Module:
    """In training mode, but for the norms: their statistics of a batch mix its samples."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return model


def dataset_of(cfg: Config, part: str, root: Path, ann_file: Path, **changes) -> NuScenesTemporalDataset:
    """A dataset of the config on the synthetic world."""
    settings = {
        **cfg[f'{part}_dataloader'].dataset,
        'data_root': str(root),
        'ann_file': str(ann_file),
        'image_size': (200, 112 - CROP),
        **changes,
    }
    settings.pop('type')
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        return NuScenesTemporalDataset(**settings)


def batch_of(model: nn.Module, items: list[dict]) -> tuple[dict, list[Det3DDataSample]]:
    """Inputs and data samples as the detector takes them."""
    prepared = model.data_preprocessor(pseudo_collate([{**item, 'inputs': dict(item['inputs'])} for item in items]))
    return prepared['inputs'], prepared['data_samples']


def seeded_item(dataset: NuScenesTemporalDataset, index: int, seed: int) -> dict:
    """An item whose augmentations follow from the seed."""
    np.random.seed(seed)
    return dataset[index]
