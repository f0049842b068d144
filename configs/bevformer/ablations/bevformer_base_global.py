# SCA to every feature of every camera (table 5, "global"); its score is the scaled dot product unless set. As in the
# paper it trains in half precision, on one feature level and 100 x 100 cells: every cell meets every feature.
_base_ = './bevformer_base_static.py'

model = dict(
    bev_grid=(100, 100),
    img_backbone=dict(out_indices=(3,)),
    img_neck=dict(in_channels=[2048], num_outs=1),
    bev_encoder=dict(encoder=dict(spatial_cross_attention=dict(_delete_=True, type='GlobalSpatialCrossAttention'))),
)
optim_wrapper = dict(type='AmpOptimWrapper')
