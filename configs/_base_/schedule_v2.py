# The published recipe of BEVFormerV2: AdamW on 16 samples a step, linear warm-up, one step down 4 epochs before the
# end. 24 epochs; for the published 48 of the same recipe set train_cfg.max_epochs=48.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=4e-4, weight_decay=0.01),
    paramwise_cfg=dict(custom_keys={'img_backbone': dict(lr_mult=0.5)}),
    clip_grad=dict(max_norm=35, norm_type=2),
)
param_scheduler = [
    # MMEngine reaches the full rate one step before `end`: that is step 2000, as published.
    dict(type='LinearLR', start_factor=1 / 3, by_epoch=False, begin=0, end=2001),
    dict(type='StepBeforeEndLR', epochs_before_end=4, gamma=0.1),
]
# The learning rate is for 16 samples a step and grows linearly with their number.
auto_scale_lr = dict(enable=True, base_batch_size=16)
train_cfg = dict(by_epoch=True, max_epochs=24, val_interval=4)
val_cfg = {}
test_cfg = {}
