# BEVFormer-small as published: ResNet-101 with deformable convolutions, one level, 150 x 150 BEV, 3 encoder layers.
_base_ = ['../_base_/nuscenes.py', '../_base_/bevformer.py', '../_base_/schedule_24e.py', '../_base_/runtime.py']

# Each of these is set here and nowhere else.
class_names = _base_.class_names
cameras = _base_.cameras
point_cloud_range = _base_.point_cloud_range
image_size = (1280, 720)
bev_grid = (150, 150)

model = dict(
    bev_grid=bev_grid,
    point_cloud_range=point_cloud_range,
    num_cameras=len(cameras),
    activation_checkpointing=('img_backbone',),
    ego_motion=dict(preset='official_v1'),
    data_preprocessor=dict(
        type='BEVFormerDataPreprocessor',
        mean=[103.53, 116.28, 123.675],
        std=[1.0, 1.0, 1.0],
        bgr_to_rgb=False,
        pad_size_divisor=32,
    ),
    img_backbone=dict(
        type='mmdet.ResNet',
        depth=101,
        num_stages=4,
        out_indices=(3,),
        frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
        style='caffe',
        dcn=dict(type='DCNv2', deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, False, True, True),
    ),
    img_neck=dict(in_channels=[2048], num_outs=1),
    bev_encoder=dict(num_feature_levels=4, encoder=dict(num_layers=3)),
    heads=dict(detection=dict(num_classes=len(class_names))),
)

dataset = dict(metainfo=dict(classes=class_names), cameras=cameras, image_size=image_size)
train_dataloader = dict(dataset=dict(dataset, point_cloud_range=point_cloud_range, queue_length=3))
val_dataloader = dict(dataset=dataset)
test_dataloader = val_dataloader

# ResNet-101-DCN of an FCOS3D; its first stage and all its normalisation stay as they are in this file.
load_from = 'ckpts/r101_dcn_fcos3d_pretrain.pth'
