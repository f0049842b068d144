"""A detector of a few thousand parameters, and what it makes of a batch."""

import torch
from torch import Tensor

from bevformer_plugin.models import BEVFormer, BEVHistory, EncodedFrames

IMAGE_HW = (64, 96)
RANGE = (-51.2, -38.4, -5.0, 51.2, 38.4, 3.0)


def detector_config(num_cameras: int = 6, head: dict | None = None, **overrides) -> dict:
    """A small BEVFormer on an 8 x 10 grid; ``head`` changes arguments of its head, overrides those of the detector."""
    transformer = dict(num_heads=4, feedforward_channels=32, dropout=0.0)
    criterion = dict(
        type='SetCriterion3D',
        assigner=dict(
            type='HungarianAssigner3D', cls_cost=dict(type='mmdet.FocalLossCost', weight=2.0), reg_cost_weight=0.25
        ),
        loss_cls=dict(type='mmdet.FocalLoss', use_sigmoid=True, loss_weight=2.0),
        loss_bbox=dict(type='mmdet.L1Loss', loss_weight=0.25),
        code_weights=[1.0] * 8 + [0.2] * 2,
    )
    detection = dict(
        type='DetectionHead',
        num_classes=3,
        queries=dict(type='LearnedQueries', num_query=12),
        decoder=dict(type='DetectionTransformerDecoder', num_layers=2),
        criterion=criterion,
        box_coder=dict(type='NMSFreeCoder'),
        **transformer,
    )
    config = dict(
        type='BEVFormer',
        bev_grid=(8, 10),
        point_cloud_range=RANGE,
        num_cameras=num_cameras,
        img_backbone=dict(type='mmdet.ResNet', depth=18, base_channels=4, out_indices=(2, 3), norm_eval=True),
        img_neck=dict(type='mmdet.FPN', in_channels=[16, 32], out_channels=16, num_outs=2),
        bev_encoder=dict(
            type='BEVEncoder',
            encoder=dict(
                type='BEVFormerEncoder', num_layers=2, spatial_cross_attention=dict(type='SpatialCrossAttention')
            ),
            **transformer,
        ),
        heads=dict(detection={**detection, **(head or {})}),
    )
    return {**config, **overrides}


def batch(*items: tuple) -> tuple[dict, list]:
    """Align queues at the end, as the data preprocessor does."""
    length = max(len(imgs) for imgs, _ in items)
    stacked = torch.stack(
        [torch.cat([imgs.new_zeros(length - len(imgs), *imgs.shape[1:]), imgs]) for imgs, _ in items]
    )
    return dict(imgs=stacked), [sample for _, sample in items]


def step(
    model: BEVFormer, imgs: Tensor, metas: list[dict], histories: list[BEVHistory | None]
) -> tuple[EncodedFrames, list[BEVHistory | None]]:
    """One frame of each sample, and what it leaves behind."""
    encoded = model.encode(imgs, model.frames_of(metas), histories)
    return encoded, encoded.histories()


def raw_outputs(model: BEVFormer, encoded: EncodedFrames) -> dict[str, Tensor]:
    """The BEV, and what the detection head says of it before boxes are decoded."""
    outputs = model.heads['detection'](encoded.bev_embed)
    return {'bev_embed': encoded.bev_embed, 'cls_scores': outputs.cls_scores, 'bbox_preds': outputs.bbox_preds}


def forward(model: BEVFormer, inputs: dict, samples: list) -> dict[str, Tensor]:
    """The same for the current frames of queues."""
    return raw_outputs(model, model(inputs, samples, mode='tensor'))
