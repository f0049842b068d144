# nuScenes: classes, cameras, range, pipelines, dataloaders and evaluators that all BEVFormer configs share.
# A leaf config sets data_root, classes, cameras, image_size and range of its datasets, each from one variable, and
# the queue_length of its training set.
data_root = 'data/nuscenes'
version = 'v1.0-trainval'
class_names = [
    'car',
    'truck',
    'construction_vehicle',
    'bus',
    'trailer',
    'barrier',
    'motorcycle',
    'bicycle',
    'pedestrian',
    'traffic_cone',
]
cameras = ['CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_FRONT_LEFT', 'CAM_BACK', 'CAM_BACK_LEFT', 'CAM_BACK_RIGHT']
point_cloud_range = [-51.2, -51.2, -5.0, 51.2, 51.2, 3.0]
# Which annotated objects are trained on and scored: 'points' (in them), 'visibility' or 'all'; see docs/data.md.
true_boxes = 'points'

train_pipeline = [
    dict(type='LoadMultiViewImages'),
    dict(type='ResizeMultiView'),
    dict(type='PhotoMetricDistortionMultiView'),
    dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True),
    dict(type='PackTemporalInputs'),
]
test_pipeline = [
    dict(type='LoadMultiViewImages'),
    dict(type='ResizeMultiView'),
    dict(type='PackTemporalInputs'),
]

train_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='ResumableSampler', shuffle=True),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        type='NuScenesTemporalDataset',
        data_root=data_root,
        ann_file='nuscenes_infos_temporal_train.pkl',
        pipeline=train_pipeline,
        metainfo=dict(classes=class_names),
        cameras=cameras,
        point_cloud_range=point_cloud_range,
        true_boxes=true_boxes,
        filter_empty_gt=True,
    ),
)
# Whole scenes in time order: the model carries its history from batch to batch.
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='SceneStreamSampler'),
    batch_sampler=dict(type='SceneStreamBatchSampler'),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        type='NuScenesTemporalDataset',
        data_root=data_root,
        ann_file='nuscenes_infos_temporal_val.pkl',
        pipeline=test_pipeline,
        metainfo=dict(classes=class_names),
        cameras=cameras,
        test_mode=True,
        true_boxes=true_boxes,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type='NuScenesDevkitMetric',
    data_root=data_root,
    version=version,
    ann_file='nuscenes_infos_temporal_val.pkl',
    true_boxes=true_boxes,
)
test_evaluator = val_evaluator
