# BEVFormer-nano on a larger world for longer.
_base_ = '../../configs/bevformer/bevformer_nano.py'

data_root = 'data/synthetic_large'
max_epochs = 5

train_dataloader = dict(dataset=dict(data_root=data_root, pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
val_evaluator = dict(data_root=data_root)
test_evaluator = val_evaluator
optim_wrapper = dict(optimizer=dict(lr=1.5e-3, betas=(0.9, 0.999)))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=200),
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=1e-3,
        by_epoch=True,
        convert_to_iter_based=True,
        begin=0,
        end=max_epochs,
    ),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=1)
