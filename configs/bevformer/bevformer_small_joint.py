# BEVFormer-small that detects and segments the map in one pass.
_base_ = ['./bevformer_small.py', '../_base_/map.py']

train_pipeline = [*_base_.train_pipeline[:-1], dict(type='LoadMapLabels'), _base_.train_pipeline[-1]]
test_pipeline = [*_base_.test_pipeline[:-1], dict(type='LoadMapLabels'), _base_.test_pipeline[-1]]

model = dict(heads=dict(map=_base_.map_head))
train_dataloader = dict(dataset=dict(map_protocol=_base_.map_protocol, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(map_protocol=_base_.map_protocol, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = [_base_.val_evaluator, dict(type='MapMetric', protocol=_base_.map_protocol)]
test_evaluator = val_evaluator
