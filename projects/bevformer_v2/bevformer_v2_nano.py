# BEVFormerV2 as small as BEVFormer-nano, with the frame before in the place of its recurrent history. The camera
# features are supervised by BEVFormer-nano's small aid, not by the perspective head of the published BEVFormerV2.
_base_ = '../../configs/bevformer/bevformer_nano.py'

# Set here and nowhere else.
frame_offsets = [-1, 0]

nano = _base_.model
model = dict(
    _delete_=True,
    type='BEVFormerV2',
    frame_offsets=frame_offsets,
    bev_fusion=dict(
        type='BEVFusion', inter_channels=_base_.embed_dims, num_blocks=1, norm_cfg=dict(type='BN', requires_grad=True)
    ),
    bev_grid=nano.bev_grid,
    point_cloud_range=nano.point_cloud_range,
    num_cameras=nano.num_cameras,
    data_preprocessor=nano.data_preprocessor,
    grid_mask=nano.grid_mask,
    img_backbone=nano.img_backbone,
    img_neck=nano.img_neck,
    bev_encoder=dict(nano.bev_encoder, motion_embedding=False),
    heads=nano.heads,
)
train_dataloader = dict(dataset=dict(queue_length=None, frame_offsets=frame_offsets))
