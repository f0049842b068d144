# BEVFormerV2 with one frame as published: ResNet-50, four levels, 200 x 200 BEV, 6 encoder layers, no augmentation.
# 24 epochs; the 48 of the other published row: --cfg-options train_cfg.max_epochs=48
_base_ = ['../_base_/nuscenes.py', '../_base_/bevformer_v2.py', '../_base_/schedule_v2.py', '../_base_/runtime.py']

# Each of these is set here and nowhere else.
class_names = sorted(_base_.class_names)
cameras = _base_.cameras
point_cloud_range = _base_.point_cloud_range
image_size = (1600, 640)  # after the crop
crop = dict(type='CropMultiView', top=260)  # rows of the 900 that are stored: sky
bev_grid = (200, 200)
frame_offsets = [0]

model = dict(
    bev_grid=bev_grid,
    point_cloud_range=point_cloud_range,
    num_cameras=len(cameras),
    frame_offsets=frame_offsets,
    heads=dict(detection=dict(num_classes=len(class_names))),
)

train_pipeline = [
    dict(type='LoadMultiViewImages'),
    crop,
    dict(type='ResizeMultiView'),
    dict(type='PhotoMetricDistortionMultiView'),
    dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True),
    dict(type='PackTemporalInputs'),
]
test_pipeline = [
    dict(type='LoadMultiViewImages'),
    crop,
    dict(type='ResizeMultiView'),
    dict(type='PackTemporalInputs'),
]

dataset = dict(metainfo=dict(classes=class_names), cameras=cameras, image_size=image_size)
train_dataloader = dict(
    dataset=dict(
        dataset, pipeline=train_pipeline, point_cloud_range=point_cloud_range, frame_offsets=frame_offsets
    )
)
val_dataloader = dict(dataset=dict(dataset, pipeline=test_pipeline))
test_dataloader = val_dataloader

# ResNet-50 of an FCOS trained on COCO, which the published code's authors renamed to MMDetection's names.
load_from = 'ckpts/fcos_r50_coco_2mmdet.pth'
