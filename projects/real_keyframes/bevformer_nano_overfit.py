# BEVFormer-nano memorises a few real keyframes: a check of calibration, boxes and scores, not of generalisation.
_base_ = '../../configs/bevformer/bevformer_nano.py'

data_root = 'data/real_keyframes'
repeats = 300  # an epoch is this many rounds over the keyframes

# The same frames and history as in streaming, so that testing sees what was memorised.
dataset = dict(
    _base_.train_dataloader.dataset,
    data_root=data_root,
    ann_file=_base_.val_dataloader.dataset.ann_file,
    queue_length=4,
    random_drop=False,
    filter_empty_gt=False,
)
train_dataloader = dict(dataset=dict(_delete_=True, type='RepeatDataset', times=repeats, dataset=dataset))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
val_evaluator = dict(data_root=data_root, version='v1.0-mini')
test_evaluator = val_evaluator

train_cfg = dict(max_epochs=1, val_interval=1)
