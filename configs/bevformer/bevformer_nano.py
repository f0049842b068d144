# BEVFormer-nano: small images, a small BEV and a light backbone; trains from scratch on two CPU cores.
# Learned queries need tens of thousands of steps, so the BEV proposes the queries and the camera features are
# supervised in their own view as well.
_base_ = ['../_base_/nuscenes.py', '../_base_/bevformer.py', '../_base_/schedule_24e.py', '../_base_/runtime.py']

# Each of these is set here and nowhere else.
data_root = 'data/synthetic'
class_names = _base_.class_names
cameras = _base_.cameras
image_size = (320, 180)
bev_grid = (64, 64)
point_cloud_range = [-51.2, -51.2, -3.0, 51.2, 51.2, 1.0]  # low: the four heights of a pillar lie on objects
embed_dims = 64
num_heads = 4
feedforward_channels = 192
base_channels = 16
max_epochs = 3
pipeline = [  # colours stay as they are: distortion pays in longer runs only
    dict(type='LoadMultiViewImages'),
    dict(type='ResizeMultiView'),
    dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True),
    dict(type='PackTemporalInputs'),
]

loss_heatmap = dict(type='mmdet.GaussianFocalLoss', loss_weight=1.0)
model = dict(
    bev_grid=bev_grid,
    point_cloud_range=point_cloud_range,
    num_cameras=len(cameras),
    grid_mask=None,
    data_preprocessor=dict(
        type='BEVFormerDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
    img_backbone=dict(
        type='mmdet.ResNet',
        depth=18,
        base_channels=base_channels,
        stem_channels=base_channels,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(1, 2),
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=False,
        style='pytorch',
    ),
    img_neck=dict(in_channels=[2 * base_channels, 4 * base_channels], out_channels=embed_dims, num_outs=2),
    bev_encoder=dict(
        num_heads=num_heads,
        feedforward_channels=feedforward_channels,
        dropout=0.0,
        bev_embedding_std=0.05,
        positional_encoding_init=dict(type='Uniform', layer='Embedding', a=0, b=1),  # as its weights were trained
        encoder=dict(num_layers=1, spatial_cross_attention=dict(num_points=4)),
    ),
    heads=dict(
        detection=dict(
            num_classes=len(class_names),
            num_heads=num_heads,
            feedforward_channels=feedforward_channels,
            dropout=0.0,
            queries=dict(
                _delete_=True,
                type='BEVProposals',
                num_query=150,
                loss_heatmap=loss_heatmap,
                loss_bbox=dict(type='mmdet.L1Loss', loss_weight=0.25),
                code_weights=[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2],
            ),
            decoder=dict(num_layers=2),
        ),
        perspective=dict(
            type='PerspectiveSupervision',
            num_classes=len(class_names),
            loss_heatmap=loss_heatmap,
            loss_values=dict(type='mmdet.L1Loss', loss_weight=0.25),
        ),
    ),
)

dataset = dict(data_root=data_root, metainfo=dict(classes=class_names), cameras=cameras, image_size=image_size)
train_dataloader = dict(
    batch_size=1,
    num_workers=1,
    pin_memory=False,
    dataset=dict(dataset, pipeline=pipeline, point_cloud_range=point_cloud_range, queue_length=2),
)
val_dataloader = dict(num_workers=1, pin_memory=False, dataset=dataset)
test_dataloader = val_dataloader
val_evaluator = dict(data_root=data_root)
test_evaluator = val_evaluator

optim_wrapper = dict(
    optimizer=dict(lr=2e-3, betas=(0.9, 0.99), fused=True), paramwise_cfg=None, clip_grad=dict(max_norm=10)
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=200),
    dict(type='CosineAnnealingLR', eta_min_ratio=1e-3, by_epoch=True, convert_to_iter_based=True, begin=0),
]
auto_scale_lr = dict(base_batch_size=1)
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
