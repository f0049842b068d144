# The model all BEVFormer configs share. A leaf config sets backbone, neck, BEV grid, range and number of cameras.
model = dict(
    type='BEVFormer',
    use_history=True,
    grid_mask=dict(prob=0.7, ratio=0.5),
    img_neck=dict(
        type='mmdet.FPN', out_channels=256, start_level=0, add_extra_convs='on_output', relu_before_extra_convs=True
    ),
    bev_encoder=dict(
        type='BEVEncoder',
        num_heads=8,
        feedforward_channels=512,
        dropout=0.1,
        encoder=dict(
            type='BEVFormerEncoder',
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
                    reg_cost_weight=0.25,
                ),
                loss_cls=dict(type='mmdet.FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0),
                loss_bbox=dict(type='mmdet.L1Loss', loss_weight=0.25),
                code_weights=[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2],
            ),
            box_coder=dict(type='NMSFreeCoder', max_num=300),
        ),
    ),
)
