# Trained on three frames, two of them history (the paper's number of frames; base has four).
_base_ = '../bevformer_base.py'

train_dataloader = dict(dataset=dict(queue_length=3))
