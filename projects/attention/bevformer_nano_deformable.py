# Table 5 of the paper on a small scale; one frame and one feature level, so that all forms of SCA use equal features.
_base_ = '../../configs/bevformer/bevformer_nano.py'

model = dict(
    use_history=False,
    bev_grid=(40, 40),
    img_backbone=dict(out_indices=(2,)),
    img_neck=dict(in_channels=[64], num_outs=1),
)
train_dataloader = dict(dataset=dict(queue_length=1))
