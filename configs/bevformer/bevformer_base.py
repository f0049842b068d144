# BEVFormer-base as published: ResNet-101 with deformable convolutions, four levels, 200 x 200 BEV, 6 encoder layers.
_base_ = ['../_base_/nuscenes.py', '../_base_/bevformer.py', '../_base_/schedule_24e.py', '../_base_/runtime.py']

# Each of these is set here and nowhere else.
cameras = ['CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_FRONT_LEFT', 'CAM_BACK', 'CAM_BACK_LEFT', 'CAM_BACK_RIGHT']
image_size = (1600, 900)
bev_grid = (200, 200)

model = dict(
    bev_grid=bev_grid,
    point_cloud_range=_base_.point_cloud_range,
    num_cameras=len(cameras),
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
        out_indices=(1, 2, 3),
        frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
        style='caffe',
        dcn=dict(type='DCNv2', deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, False, True, True),
    ),
    img_neck=dict(in_channels=[512, 1024, 2048], num_outs=4),
    pts_bbox_head=dict(num_classes=len(_base_.class_names), transformer=dict(encoder=dict(num_layers=6))),
)

train_dataloader = dict(dataset=dict(cameras=cameras, image_size=image_size))
val_dataloader = dict(dataset=dict(cameras=cameras, image_size=image_size))
test_dataloader = dict(dataset=dict(cameras=cameras, image_size=image_size))
