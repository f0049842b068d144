# BEVFormer-tiny on small synthetic images, from random weights, all of which learn: the first 200 steps of the
# published recipe.
_base_ = '../../configs/bevformer/bevformer_tiny.py'

data_root = 'data/synthetic_200'
image_size = (400, 225)

model = dict(
    img_backbone=dict(init_cfg=None, frozen_stages=-1, norm_cfg=dict(type='BN', requires_grad=True), norm_eval=False)
)
dataset = dict(data_root=data_root, image_size=image_size)
train_dataloader = dict(num_workers=1, dataset=dataset)
val_dataloader = dict(num_workers=1, dataset=dataset)
test_dataloader = val_dataloader
val_evaluator = dict(data_root=data_root)
test_evaluator = val_evaluator
default_hooks = dict(logger=dict(interval=1))
train_cfg = dict(max_epochs=1)
auto_scale_lr = dict(enable=False)  # the published code does not scale either
