# BEVFormer-nano that detects and segments the map in one pass.
_base_ = ['./bevformer_nano.py', '../_base_/map.py']

pipeline = [*_base_.pipeline[:-1], dict(type='LoadMapLabels'), _base_.pipeline[-1]]
test_pipeline = [*_base_.test_pipeline[:-1], dict(type='LoadMapLabels'), _base_.test_pipeline[-1]]

model = dict(heads=dict(map=dict(_base_.map_head, decoder=dict(type='ConvMapDecoder', channels=64, fine_channels=16))))
train_dataloader = dict(dataset=dict(map_protocol=_base_.map_protocol, pipeline=pipeline))
val_dataloader = dict(dataset=dict(map_protocol=_base_.map_protocol, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = [_base_.val_evaluator, dict(type='MapMetric', protocol=_base_.map_protocol)]
test_evaluator = val_evaluator
