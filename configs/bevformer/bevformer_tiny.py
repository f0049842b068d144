# BEVFormer-tiny as published: ResNet-50, one feature level, 50 x 50 BEV, 3 encoder layers, images at half size.
_base_ = ['../_base_/nuscenes.py', '../_base_/bevformer.py', '../_base_/schedule_24e.py', '../_base_/runtime.py']

# Each of these is set here and nowhere else.
class_names = _base_.class_names
cameras = _base_.cameras
point_cloud_range = _base_.point_cloud_range
image_size = (800, 450)
bev_grid = (50, 50)

model = dict(
    bev_grid=bev_grid,
    point_cloud_range=point_cloud_range,
    num_cameras=len(cameras),
    ego_motion=dict(preset='official_v1'),
    data_preprocessor=dict(
        type='BEVFormerDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
    img_backbone=dict(
        type='mmdet.ResNet',
        depth=50,
        num_stages=4,
        out_indices=(3,),
        frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
        style='pytorch',
        init_cfg=dict(type='Pretrained', checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth'),
    ),
    img_neck=dict(in_channels=[2048], num_outs=1),
    bev_encoder=dict(num_feature_levels=4, encoder=dict(num_layers=3)),
    heads=dict(detection=dict(num_classes=len(class_names))),
)

dataset = dict(metainfo=dict(classes=class_names), cameras=cameras, image_size=image_size)
train_dataloader = dict(dataset=dict(dataset, point_cloud_range=point_cloud_range, queue_length=3))
val_dataloader = dict(dataset=dataset)
test_dataloader = val_dataloader
