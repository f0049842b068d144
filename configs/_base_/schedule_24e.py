# The published recipe: AdamW on 8 samples a step, 24 epochs, linear warm-up, cosine decay.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-4, weight_decay=0.01),
    paramwise_cfg=dict(custom_keys={'img_backbone': dict(lr_mult=0.1)}),
    clip_grad=dict(max_norm=35, norm_type=2),
)
# A scheduler without `end` goes to the end of training, which train_cfg alone sets.
param_scheduler = [
    # MMEngine reaches the full rate one step before `end`: that is step 500, as published.
    dict(type='LinearLR', start_factor=1 / 3, by_epoch=False, begin=0, end=501),
    # By epoch, as published: the rate stays the same within an epoch.
    dict(type='CosineAnnealingLR', eta_min_ratio=1e-3, by_epoch=True, begin=0),
]
# The learning rate is for 8 samples a step and grows linearly with their number.
auto_scale_lr = dict(enable=True, base_batch_size=8)
train_cfg = dict(by_epoch=True, max_epochs=24, val_interval=1)
val_cfg = {}
test_cfg = {}
