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
canonical_sizes = {  # usual width, length and height in metres
    'barrier': [2.3524184, 0.5062202, 1.0413622],
    'bicycle': [0.61416006, 1.7016163, 1.3054738],
    'bus': [2.9139307, 10.725025, 3.2832346],
    'car': [1.9751819, 4.641267, 1.74352],
    'construction_vehicle': [2.772134, 6.565072, 3.2474296],
    'motorcycle': [0.7800532, 2.138673, 1.4437162],
    'pedestrian': [0.6667362, 0.7181772, 1.7616143],
    'traffic_cone': [0.40246472, 0.4027083, 1.0084083],
    'trailer': [3.0059454, 12.8197, 4.1213827],
    'truck': [2.4986045, 6.9310856, 2.8382742],
}

model = dict(
    bev_grid=bev_grid,
    point_cloud_range=point_cloud_range,
    num_cameras=len(cameras),
    frame_offsets=frame_offsets,
    heads=dict(
        detection=dict(num_classes=len(class_names)),
        perspective=dict(
            num_classes=len(class_names), canonical_sizes=[canonical_sizes[name] for name in class_names]
        ),
    ),
)

train_pipeline = [
    dict(type='LoadMultiViewImages'),
    crop,
    dict(type='ResizeMultiView'),
    dict(type='PhotoMetricDistortionMultiView'),
    dict(type='LoadCameraInstances', min_points=3, min_visible=0.2),
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
        dataset,
        pipeline=train_pipeline,
        point_cloud_range=point_cloud_range,
        frame_offsets=frame_offsets,
        with_camera_objects=True,
    )
)
val_dataloader = dict(dataset=dict(dataset, pipeline=test_pipeline))
test_dataloader = val_dataloader

# ResNet-50 of an FCOS trained on COCO, which the published code's authors renamed to MMDetection's names.
load_from = 'ckpts/fcos_r50_coco_2mmdet.pth'
