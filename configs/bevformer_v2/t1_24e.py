# BEVFormerV2 with one frame, augmentation of images and 11 groups of object queries.
# 24 epochs; the 48 of the other published row: --cfg-options train_cfg.max_epochs=48
_base_ = './t1_base_24e.py'

model = dict(heads=dict(detection=dict(queries=dict(num_groups=11))))

train_pipeline = [
    dict(type='LoadMultiViewImages'),
    _base_.crop,
    dict(type='RandomResizeMultiView', heights=[512, 544, 576, 608, 640, 672, 704, 736, 768]),
    dict(type='PhotoMetricDistortionMultiView'),
    dict(type='RandomFlipMultiView', prob=0.5),
    dict(type='LoadCameraInstances', min_points=3, min_visible=0.2),
    dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True),
    dict(type='PackTemporalInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
