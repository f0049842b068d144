# The paper's table 5 on a small scale: one frame, one feature level, so that all forms of SCA see the same features.
_base_ = '../../configs/bevformer/bevformer_nano.py'

bev_grid = (40, 40)
max_epochs = 3

model = dict(
    use_history=False,
    bev_grid=bev_grid,
    img_backbone=dict(out_indices=(2,)),
    img_neck=dict(in_channels=[64], num_outs=1))
train_dataloader = dict(dataset=dict(pipeline=_base_.train_pipeline, queue_length=1))
optim_wrapper = dict(optimizer=dict(lr=1.5e-3, betas=(0.9, 0.999)))
