# The longer run without history: every frame alone, everything else equal.
_base_ = './bevformer_nano_long.py'

model = dict(use_history=False)
train_dataloader = dict(dataset=dict(queue_length=1))
