"""A detector of a few thousand parameters."""

import torch

import bevformer_plugin  # noqa: F401  fills the registries

IMAGE_HW = (64, 96)
RANGE = (-51.2, -38.4, -5.0, 51.2, 38.4, 3.0)


def detector_config(num_cameras: int = 6, box_coder: dict | None = None, **overrides) -> dict:
    """A small BEVFormer on an 8 x 10 grid; overrides replace arguments of the detector."""
    transformer = dict(
        type='BEVFormerTransformer',
        num_heads=4,
        feedforward_channels=32,
        dropout=0.0,
        encoder=dict(
            type='BEVFormerEncoder', num_layers=2, spatial_cross_attention=dict(type='SpatialCrossAttention')
        ),
        decoder=dict(type='DetectionTransformerDecoder', num_layers=2),
    )
    criterion = dict(
        type='SetCriterion3D',
        assigner=dict(
            type='HungarianAssigner3D', cls_cost=dict(type='mmdet.FocalLossCost', weight=2.0), reg_cost_weight=0.25
        ),
        loss_cls=dict(type='mmdet.FocalLoss', use_sigmoid=True, loss_weight=2.0),
        loss_bbox=dict(type='mmdet.L1Loss', loss_weight=0.25),
        code_weights=[1.0] * 8 + [0.2] * 2,
    )
    head = dict(
        type='BEVFormerHead',
        num_classes=3,
        embed_dims=16,
        num_query=12,
        transformer=transformer,
        criterion=criterion,
        box_coder=box_coder or dict(type='NMSFreeCoder'),
    )
    config = dict(
        type='BEVFormer',
        bev_grid=(8, 10),
        point_cloud_range=RANGE,
        num_cameras=num_cameras,
        img_backbone=dict(type='mmdet.ResNet', depth=18, base_channels=4, out_indices=(2, 3), norm_eval=True),
        img_neck=dict(type='mmdet.FPN', in_channels=[16, 32], out_channels=16, num_outs=2),
        pts_bbox_head=head,
    )
    return {**config, **overrides}


def batch(*items: tuple) -> tuple[dict, list]:
    """Align queues at the end, as the data preprocessor does."""
    length = max(len(imgs) for imgs, _ in items)
    stacked = torch.stack(
        [torch.cat([imgs.new_zeros(length - len(imgs), *imgs.shape[1:]), imgs]) for imgs, _ in items]
    )
    return dict(imgs=stacked), [sample for _, sample in items]
