# History is the frames right before the current one, none dropped at random.
_base_ = '../bevformer_base.py'

train_dataloader = dict(dataset=dict(random_drop=False))
