_base_ = './bevformer_nano_deformable.py'

model = dict(
    bev_encoder=dict(
        encoder=dict(
            spatial_cross_attention=dict(
                _delete_=True, type='GlobalSpatialCrossAttention', score=dict(type='AdditiveScore'), score_dims=8
            )
        )
    )
)
