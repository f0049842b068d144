# BEVFormer-nano: small images, small BEV and a light backbone, made to train from scratch on two CPU cores.
_base_ = [
    '../_base_/nuscenes.py', '../_base_/bevformer.py', '../_base_/schedule_24e.py', '../_base_/runtime.py'
]

# Each of these is set here and nowhere else.
data_root = 'data/synthetic'
cameras = ['CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_FRONT_LEFT', 'CAM_BACK', 'CAM_BACK_LEFT', 'CAM_BACK_RIGHT']
image_size = (320, 180)
bev_grid = (40, 40)
embed_dims = 96

model = dict(
    bev_grid=bev_grid,
    num_cameras=len(cameras),
    grid_mask=None,
    data_preprocessor=dict(
        type='BEVFormerDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32),
    img_backbone=dict(
        type='mmdet.ResNet',
        depth=18,
        base_channels=32,
        out_indices=(1, 2, 3),
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=False,
        style='pytorch'),
    img_neck=dict(in_channels=[64, 128, 256], out_channels=embed_dims, num_outs=3),
    pts_bbox_head=dict(
        num_classes=len(_base_.class_names),
        embed_dims=embed_dims,
        num_query=200,
        transformer=dict(
            feedforward_channels=2 * embed_dims,
            encoder=dict(num_layers=2),
            decoder=dict(num_layers=3))))

train_dataloader = dict(batch_size=4, dataset=dict(data_root=data_root, cameras=cameras, image_size=image_size))
val_dataloader = dict(dataset=dict(data_root=data_root, cameras=cameras, image_size=image_size))
test_dataloader = dict(dataset=dict(data_root=data_root, cameras=cameras, image_size=image_size))
optim_wrapper = dict(optimizer=dict(lr=4e-4))
