# SCA at the projected points only (table 5, "points").
_base_ = './bevformer_base_static.py'

model = dict(
    bev_encoder=dict(encoder=dict(spatial_cross_attention=dict(_delete_=True, type='PointSpatialCrossAttention')))
)
