# BEVFormerV2 with two frames, half a second apart, and augmentation of the BEV as well.
# 24 epochs; the 48 of the other published row: --cfg-options train_cfg.max_epochs=48
_base_ = './t1_24e.py'

# Set here and nowhere else.
frame_offsets = [-1, 0]

model = dict(
    frame_offsets=frame_offsets,
    bev_fusion=dict(type='BEVFusion', inter_channels=512, norm_cfg=_base_.norm_cfg),
)
# Boxes and BEV are moved before the item is packed.
train_pipeline = [
    *_base_.train_pipeline[:-1],
    dict(
        type='RandomBEVAugmentation',
        point_cloud_range=_base_.point_cloud_range,
        max_degrees=22.5,
        scales=(0.95, 1.05),
        flip_x_prob=0.5,
        flip_y_prob=0.5,
    ),
    _base_.train_pipeline[-1],
]
train_dataloader = dict(dataset=dict(frame_offsets=frame_offsets, pipeline=train_pipeline))
