"""The released BEVFormerV2 configs have the published values: of fundamentalvision/BEVFormer at 66b65f3."""

import pytest
import torch
from mmdet3d.registry import PARAM_SCHEDULERS

from bevformer_plugin.configuration import load_config
from bevformer_plugin.errors import InputError
from tests.configs.test_published_recipe import CAMERAS, CLASSES, CRITERION, RANGE, value
from tests.helpers.repository import CONFIGS

ALPHABETICAL = sorted(CLASSES)
COMMON = {
    'model.type': 'BEVFormerV2',
    'model.bev_grid': (200, 200),
    'model.point_cloud_range': RANGE,
    'model.num_cameras': 6,
    'model.data_preprocessor.mean': [103.53, 116.28, 123.675],
    'model.data_preprocessor.std': [1.0, 1.0, 1.0],
    'model.data_preprocessor.bgr_to_rgb': False,
    'model.img_backbone.depth': 50,
    'model.img_backbone.out_indices': (1, 2, 3),
    'model.img_backbone.frozen_stages': -1,
    'model.img_backbone.norm_cfg': {'type': 'SyncBN', 'requires_grad': True},
    'model.img_backbone.norm_eval': False,
    'model.img_backbone.style': 'caffe',
    'model.img_neck.num_outs': 5,
    'model.img_neck.add_extra_convs': 'on_output',
    'model.bev_encoder.encoded_levels': 4,
    'model.bev_encoder.motion_embedding': False,
    'model.bev_encoder.encoder.num_layers': 6,
    'model.heads.detection.decoder.num_layers': 6,
    'model.heads.detection.queries.num_query': 900,
    'model.heads.detection.box_coder.max_num': 300,
    f'{CRITERION}.assigner.cls_cost.weight': 2.0,
    f'{CRITERION}.assigner.reg_cost_weight': 0.75,
    f'{CRITERION}.assigner.smooth_l1_beta': 1.0,
    f'{CRITERION}.loss_bbox': {'type': 'mmdet.SmoothL1Loss', 'beta': 1.0, 'loss_weight': 0.75},
    f'{CRITERION}.loss_cls.loss_weight': 2.0,
    f'{CRITERION}.code_weights': [1.0] * 8 + [0.2] * 2,
    'optim_wrapper.optimizer': {'type': 'AdamW', 'lr': 4e-4, 'weight_decay': 0.01},
    'optim_wrapper.paramwise_cfg.custom_keys': {'img_backbone': {'lr_mult': 0.5}},
    'optim_wrapper.clip_grad': {'max_norm': 35, 'norm_type': 2},
    'auto_scale_lr.base_batch_size': 16,
    'train_dataloader.batch_size': 1,
    'train_dataloader.dataset.image_size': (1600, 640),
    'train_dataloader.dataset.metainfo.classes': ALPHABETICAL,
    'train_dataloader.dataset.cameras': CAMERAS,
    'train_dataloader.dataset.filter_empty_gt': True,
    'train_cfg.max_epochs': 24,
    'train_cfg.val_interval': 4,
    'load_from': 'ckpts/fcos_r50_coco_2mmdet.pth',
}
FRAMES = {'t1_base': [0], 't1': [0], 't2': [-1, 0], 't8': [-7, -6, -5, -4, -3, -2, -1, 0]}
STEPS_PER_EPOCH = 1759  # 28 130 keyframes, 16 samples a step


def config(name: str, **options):
    return load_config(str(CONFIGS.parent / 'bevformer_v2' / f'{name}_24e.py'), options)


@pytest.mark.parametrize('name', FRAMES)
def test_v2_values_are_the_published_ones(name):
    cfg = config(name)
    for path, expected in COMMON.items():
        found = value(cfg, path)
        found = type(expected)(found) if isinstance(expected, list | tuple) else found
        assert found == expected, path
    assert cfg.model.frame_offsets == cfg.train_dataloader.dataset.frame_offsets == FRAMES[name]
    assert cfg.model.heads.detection.queries.get('num_groups', 1) == (1 if name == 't1_base' else 11)
    assert (cfg.model.get('bev_fusion') is None) == (len(FRAMES[name]) == 1)
    assert len(FRAMES[name]) == 1 or cfg.model.bev_fusion.inter_channels == 512
    transforms = {transform.type: transform for transform in cfg.train_dataloader.dataset.pipeline}
    assert transforms['CropMultiView'].top == 260
    augmented = name != 't1_base'
    assert ('RandomFlipMultiView' in transforms) == ('RandomResizeMultiView' in transforms) == augmented
    if augmented:
        assert list(transforms['RandomResizeMultiView'].heights) == list(range(512, 769, 32))
    assert ('RandomBEVAugmentation' in transforms) == (name in ('t2', 't8'))
    assert [transform.type for transform in cfg.test_dataloader.dataset.pipeline] == [
        'LoadMultiViewImages',
        'CropMultiView',
        'ResizeMultiView',
        'PackTemporalInputs',
    ]


@pytest.mark.parametrize(('epochs', 'step'), [(24, 20), (48, 44)])
def test_v2_learning_rate_falls_four_epochs_before_the_end(epochs, step):
    """One option makes the 48-epoch recipe; the step moves with it."""
    cfg = config('t1', **{'train_cfg.max_epochs': epochs})
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=cfg.optim_wrapper.optimizer.lr)
    warm_up, decay = (
        PARAM_SCHEDULERS.build({'end': cfg.train_cfg.max_epochs, **entry, 'optimizer': optimizer})
        for entry in cfg.param_scheduler
    )
    rates = {}
    for epoch in range(1, epochs + 1):
        for number in range(STEPS_PER_EPOCH):
            rates[(epoch - 1) * STEPS_PER_EPOCH + number] = optimizer.param_groups[0]['lr']
            optimizer.step()
            warm_up.step()
        decay.step()
    assert rates[0] == pytest.approx(4e-4 / 3)
    assert rates[1000] == pytest.approx(4e-4 * 2 / 3) and rates[2000] == pytest.approx(4e-4)
    assert rates[step * STEPS_PER_EPOCH - 1] == pytest.approx(4e-4)
    assert rates[step * STEPS_PER_EPOCH] == pytest.approx(4e-5) == rates[epochs * STEPS_PER_EPOCH - 1]


@pytest.mark.parametrize('before_end', [0, 3, 4])
def test_a_step_outside_of_the_training_is_refused(before_end):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    entry = dict(type='StepBeforeEndLR', epochs_before_end=before_end, end=3, optimizer=optimizer)
    with pytest.raises(InputError, match=f'epochs_before_end={before_end} does not lie within the 3 epochs'):
        PARAM_SCHEDULERS.build(entry)
