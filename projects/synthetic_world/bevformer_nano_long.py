# BEVFormer-nano on a larger world for longer.
_base_ = '../../configs/bevformer/bevformer_nano.py'

data_root = 'data/synthetic_large'

train_dataloader = dict(dataset=dict(data_root=data_root, pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
val_evaluator = dict(data_root=data_root)
test_evaluator = val_evaluator
optim_wrapper = dict(optimizer=dict(lr=1.5e-3, betas=(0.9, 0.999)))
train_cfg = dict(max_epochs=5, val_interval=1)
