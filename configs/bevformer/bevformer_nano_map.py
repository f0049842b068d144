# BEVFormer-nano that segments the map only.
_base_ = './bevformer_nano_joint.py'

model = dict(heads=dict(detection=None, perspective=None))
val_evaluator = [dict(type='MapMetric', protocol=_base_.map_protocol)]
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(save_best=f'map/{_base_.map_protocol}/mIoU@0.5'))
