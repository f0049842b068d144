# The model all BEVFormerV2 configs share. A leaf config sets frames, BEV grid, range and number of cameras.
norm_cfg = dict(type='SyncBN', requires_grad=True)

model = dict(
    type='BEVFormerV2',
    grid_mask=dict(prob=0.7, ratio=0.5),
    data_preprocessor=dict(
        type='BEVFormerDataPreprocessor',
        mean=[103.53, 116.28, 123.675],
        std=[1.0, 1.0, 1.0],
        bgr_to_rgb=False,
        pad_size_divisor=32,
    ),
    img_backbone=dict(
        type='mmdet.ResNet',
        depth=50,
        num_stages=4,
        out_indices=(1, 2, 3),
        frozen_stages=-1,
        norm_cfg=norm_cfg,
        norm_eval=False,
        style='caffe',
    ),
    img_neck=dict(
        type='mmdet.FPN',
        in_channels=[512, 1024, 2048],
        out_channels=256,
        start_level=0,
        add_extra_convs='on_output',
        num_outs=5,
        relu_before_extra_convs=True,
    ),
    bev_encoder=dict(
        type='BEVEncoder',
        motion_embedding=False,  # no CAN bus
        encoded_levels=4,  # of the neck's five; the coarsest is for the perspective head
        num_heads=8,
        feedforward_channels=512,
        dropout=0.1,
        encoder=dict(
            type='BEVFormerEncoder',
            num_layers=6,
            tsa_num_points=4,
            num_points_in_pillar=4,
            spatial_cross_attention=dict(type='SpatialCrossAttention', num_points=8),
        ),
    ),
    heads=dict(
        detection=dict(
            type='DetectionHead',
            num_heads=8,
            feedforward_channels=512,
            dropout=0.1,
            queries=dict(type='LearnedQueries', num_query=900),
            decoder=dict(type='DetectionTransformerDecoder', num_layers=6, num_points=4),
            criterion=dict(
                type='SetCriterion3D',
                assigner=dict(
                    type='HungarianAssigner3D',
                    cls_cost=dict(type='mmdet.FocalLossCost', weight=2.0),
                    reg_cost_weight=0.75,
                    smooth_l1_beta=1.0,
                ),
                loss_cls=dict(type='mmdet.FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0),
                loss_bbox=dict(type='mmdet.SmoothL1Loss', beta=1.0, loss_weight=0.75),
                code_weights=[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2],
            ),
            box_coder=dict(type='NMSFreeCoder', max_num=300),
        ),
        # For training alone. Levels are of strides 8 to 128; depths are statistics of nuScenes' objects on each level.
        perspective=dict(
            type='PerspectiveHead',
            strides=[8, 16, 32, 64, 128],
            largest_sides=[64.0, 128.0, 256.0, 512.0, 1e8],
            mean_depths=[44.921, 20.252, 11.712, 7.166, 8.548],
            std_depths=[24.331, 9.833, 6.223, 4.611, 8.275],
            norm_cfg=norm_cfg,
            loss_cls=dict(type='mmdet.FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25),
            loss_box2d=dict(type='mmdet.GIoULoss'),
            loss_centerness=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=True),
            loss_corners=dict(type='mmdet.SmoothL1Loss', beta=0.05, loss_weight=2.0),
            loss_confidence=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=True),
            loss_attribute=dict(type='mmdet.CrossEntropyLoss', loss_weight=0.2),
            loss_speed=dict(type='mmdet.SmoothL1Loss', beta=0.05, loss_weight=0.2),
        ),
    ),
)
