# SCA to every feature of every camera (table 5, "global"); its score is the scaled dot product unless set.
_base_ = './bevformer_base_static.py'

model = dict(
    pts_bbox_head=dict(
        transformer=dict(encoder=dict(spatial_cross_attention=dict(_delete_=True, type='GlobalSpatialCrossAttention')))
    )
)
