# The longer run goes on from its weights, on scenes it has not seen yet: a queue of three frames, and velocities that
# count as much as positions.
_base_ = './bevformer_nano_long.py'

data_root = 'data/synthetic_larger'
load_from = 'work_dirs/long/last.ckpt'
code_weights = [1.0] * 10

model = dict(
    heads=dict(detection=dict(queries=dict(code_weights=code_weights), criterion=dict(code_weights=code_weights)))
)
train_dataloader = dict(dataset=dict(data_root=data_root, queue_length=3))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
val_evaluator = dict(data_root=data_root)
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=1000))
optim_wrapper = dict(optimizer=dict(lr=8e-4))
train_cfg = dict(max_epochs=2)
