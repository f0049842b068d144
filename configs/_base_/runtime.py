custom_imports = dict(imports=['bevformer_plugin'], allow_failed_imports=False)
default_scope = 'mmdet3d'
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    # MMEngine's Runner deletes the oldest before it writes the next, so one alone could be lost.
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=2, save_best='nuscenes/NDS', rule='greater'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    match_checkpoint=dict(type='MatchCheckpoint'),  # mmdetection3d's own tools/test.py is as strict as ours
)
env_cfg = dict(
    cudnn_benchmark=False, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0), dist_cfg=dict(backend='nccl')
)
# History frames are normalised by running statistics: processes share them, as under Lightning.
model_wrapper_cfg = dict(type='MMDistributedDataParallel', broadcast_buffers=True)
log_level = 'INFO'
load_from = None
resume = False
