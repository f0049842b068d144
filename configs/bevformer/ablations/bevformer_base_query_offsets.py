# TSA predicts its offsets and weights from the BEV query alone.
_base_ = '../bevformer_base.py'

model = dict(pts_bbox_head=dict(transformer=dict(encoder=dict(offsets_see_history=False))))
