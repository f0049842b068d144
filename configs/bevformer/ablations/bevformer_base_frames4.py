# Trained on four frames, three of them history (the paper's number of frames).
_base_ = '../bevformer_base.py'

train_dataloader = dict(dataset=dict(queue_length=4))
