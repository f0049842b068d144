# TSA predicts its offsets and weights from the BEV query alone.
_base_ = '../bevformer_base.py'

model = dict(bev_encoder=dict(encoder=dict(offsets_see_history=False)))
