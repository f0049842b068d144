# BEVFormerV2 with one frame, augmentation of images and 11 groups of object queries.
# 24 epochs; the 48 of the other published row: --cfg-options train_cfg.max_epochs=48
_base_ = './t1_base_24e.py'

model = dict(heads=dict(detection=dict(queries=dict(num_groups=11))))
