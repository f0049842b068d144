# BEVFormer-nano memorises a few real keyframes: a check of calibration, boxes and scores, not of generalisation.
_base_ = '../../configs/bevformer/bevformer_nano.py'

data_root = 'data/real_keyframes'
repeats = 300  # an epoch is this many rounds over the keyframes

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='RepeatDataset',
        times=repeats,
        dataset=dict(
            type='NuScenesTemporalDataset',
            data_root=data_root,
            ann_file='nuscenes_infos_temporal_val.pkl',
            pipeline=_base_.pipeline,
            metainfo=dict(classes=_base_.class_names),
            point_cloud_range=_base_.point_cloud_range,
            cameras=_base_.cameras,
            image_size=_base_.image_size,
            # The same history as in streaming, so that testing sees what was memorised.
            queue_length=4,
            random_drop=False,
        ),
    )
)
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
val_evaluator = dict(data_root=data_root, version='v1.0-mini')
test_evaluator = val_evaluator

train_cfg = dict(max_epochs=1, val_interval=1)
