# BEVFormerV2 with eight frames: four seconds.
# 24 epochs; 48 by --cfg-options train_cfg.max_epochs=48, for which no score is published
_base_ = './t2_24e.py'

# Set here and nowhere else.
frame_offsets = [-7, -6, -5, -4, -3, -2, -1, 0]

model = dict(frame_offsets=frame_offsets)
train_dataloader = dict(dataset=dict(frame_offsets=frame_offsets))
