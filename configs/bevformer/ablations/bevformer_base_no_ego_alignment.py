# The previous BEV is neither rotated nor shifted to where the vehicle is now.
_base_ = '../bevformer_base.py'

model = dict(ego_motion=dict(align_history=False))
