# BEVFormer-nano that detects and segments the map in one pass.
_base_ = './bevformer_nano.py'

map_protocol = 'paper'
pipeline = [*_base_.pipeline[:-1], dict(type='LoadMapLabels'), _base_.pipeline[-1]]
test_pipeline = [*_base_.test_pipeline[:-1], dict(type='LoadMapLabels'), _base_.test_pipeline[-1]]

model = dict(
    heads=dict(
        map=dict(
            type='MapHead',
            protocol=map_protocol,
            decoder=dict(type='ConvMapDecoder', channels=64, fine_channels=16),
            loss_focal=dict(type='mmdet.FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.5, loss_weight=5.0),
            loss_dice=dict(type='mmdet.DiceLoss', naive_dice=True, eps=1.0, loss_weight=3.0),
        )
    )
)
train_dataloader = dict(dataset=dict(map_protocol=map_protocol, pipeline=pipeline))
val_dataloader = dict(dataset=dict(map_protocol=map_protocol, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = [_base_.val_evaluator, dict(type='MapMetric', protocol=map_protocol)]
test_evaluator = val_evaluator
