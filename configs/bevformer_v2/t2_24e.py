# BEVFormerV2 with two frames, half a second apart, and augmentation of the BEV as well.
# 24 epochs; the 48 of the other published row: --cfg-options train_cfg.max_epochs=48
_base_ = './t1_24e.py'

# Set here and nowhere else.
frame_offsets = [-1, 0]

model = dict(
    frame_offsets=frame_offsets,
    bev_fusion=dict(type='BEVFusion', inter_channels=512, norm_cfg=_base_.norm_cfg),
)
train_dataloader = dict(dataset=dict(frame_offsets=frame_offsets))
