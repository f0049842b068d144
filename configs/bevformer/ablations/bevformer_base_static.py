# BEVFormer-S: every frame alone, one frame in the paper's count (tables 5 and 8).
_base_ = '../bevformer_base.py'

model = dict(use_history=False)
train_dataloader = dict(dataset=dict(queue_length=1))
