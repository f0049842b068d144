# BEVFormer-tiny as published in half precision: two samples on each of 8 GPUs, and sqrt(2) times the learning rate.
_base_ = './bevformer_tiny.py'

train_dataloader = dict(batch_size=2)
optim_wrapper = dict(type='AmpOptimWrapper', dtype='float16', loss_scale=512.0, optimizer=dict(lr=2.8e-4))
auto_scale_lr = dict(base_batch_size=16)
