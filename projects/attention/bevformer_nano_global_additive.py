_base_ = './bevformer_nano_deformable.py'

model = dict(
    pts_bbox_head=dict(
        transformer=dict(
            encoder=dict(
                spatial_cross_attention=dict(
                    _delete_=True, type='GlobalSpatialCrossAttention', score=dict(type='AdditiveScore'), score_dims=8
                )
            )
        )
    )
)
