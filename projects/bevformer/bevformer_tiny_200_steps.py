# BEVFormer-tiny on small synthetic images, from random weights: the first 200 steps of the published recipe.
_base_ = '../../configs/bevformer/bevformer_tiny.py'

data_root = 'data/synthetic_200'
image_size = (400, 225)

model = dict(img_backbone=dict(init_cfg=None))
train_dataloader = dict(num_workers=1, dataset=dict(data_root=data_root, image_size=image_size))
val_dataloader = dict(num_workers=1, dataset=dict(data_root=data_root, image_size=image_size))
test_dataloader = val_dataloader
val_evaluator = dict(data_root=data_root)
test_evaluator = val_evaluator
default_hooks = dict(logger=dict(interval=1))
train_cfg = dict(max_epochs=1)
auto_scale_lr = dict(enable=False)  # the published code does not scale either
