"""The released configs have the published values: of fundamentalvision/BEVFormer at 66b65f3, and of its paper."""

import math

import pytest
import torch
from mmdet3d.registry import MODELS, PARAM_SCHEDULERS
from mmengine.config import Config

import bevformer_plugin  # noqa: F401  fills the registries
from bevformer_plugin.configuration import load_config
from bevformer_plugin.training.learning_rate import scaling_factor
from tests.helpers.repository import CONFIGS

R101_START = 'ckpts/r101_dcn_fcos3d_pretrain.pth'
CAMERAS = ['CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_FRONT_LEFT', 'CAM_BACK', 'CAM_BACK_LEFT', 'CAM_BACK_RIGHT']
CLASSES = [
    *('car', 'truck', 'construction_vehicle', 'bus', 'trailer'),
    *('barrier', 'motorcycle', 'bicycle', 'pedestrian', 'traffic_cone'),
]
RANGE = [-51.2, -51.2, -5.0, 51.2, 51.2, 3.0]
TRANSFORMER = 'model.pts_bbox_head.transformer'
CRITERION = 'model.pts_bbox_head.criterion'

COMMON = {
    'model.point_cloud_range': RANGE,
    'model.num_cameras': 6,
    'model.ego_motion.preset': 'official_v1',
    'model.grid_mask': {'prob': 0.7, 'ratio': 0.5},
    'model.data_preprocessor.pad_size_divisor': 32,
    'model.img_backbone.frozen_stages': 1,
    'model.img_backbone.norm_cfg': {'type': 'BN', 'requires_grad': False},
    'model.img_backbone.norm_eval': True,
    'model.img_neck.out_channels': 256,
    'model.img_neck.add_extra_convs': 'on_output',
    'model.img_neck.relu_before_extra_convs': True,
    'model.pts_bbox_head.num_classes': 10,
    'model.pts_bbox_head.num_query': 900,
    'model.pts_bbox_head.embed_dims': 256,
    'model.pts_bbox_head.box_coder.max_num': 300,
    f'{TRANSFORMER}.num_heads': 8,
    f'{TRANSFORMER}.feedforward_channels': 512,
    f'{TRANSFORMER}.dropout': 0.1,
    f'{TRANSFORMER}.encoder.tsa_num_points': 4,
    f'{TRANSFORMER}.encoder.num_points_in_pillar': 4,
    f'{TRANSFORMER}.encoder.spatial_cross_attention.num_points': 8,
    f'{TRANSFORMER}.decoder.num_layers': 6,
    f'{TRANSFORMER}.decoder.num_points': 4,
    f'{CRITERION}.assigner.cls_cost.weight': 2.0,
    f'{CRITERION}.assigner.reg_cost_weight': 0.25,
    f'{CRITERION}.loss_cls.gamma': 2.0,
    f'{CRITERION}.loss_cls.alpha': 0.25,
    f'{CRITERION}.loss_cls.loss_weight': 2.0,
    f'{CRITERION}.loss_bbox.loss_weight': 0.25,
    f'{CRITERION}.code_weights': [1.0] * 8 + [0.2] * 2,
    'optim_wrapper.optimizer.type': 'AdamW',
    'optim_wrapper.optimizer.weight_decay': 0.01,
    'optim_wrapper.paramwise_cfg.custom_keys': {'img_backbone': {'lr_mult': 0.1}},
    'optim_wrapper.clip_grad': {'max_norm': 35, 'norm_type': 2},
    'train_cfg.max_epochs': 24,
    'train_cfg.val_interval': 1,
    'train_dataloader.dataset.point_cloud_range': RANGE,
    'train_dataloader.dataset.filter_empty_gt': True,
    'default_hooks.logger.interval': 50,
}
FLOAT32 = {
    'optim_wrapper.type': 'OptimWrapper',
    'optim_wrapper.optimizer.lr': 2e-4,
    'train_dataloader.batch_size': 1,
    'auto_scale_lr.base_batch_size': 8,
}
R101 = {
    **FLOAT32,
    'model.img_backbone.depth': 101,
    'model.img_backbone.style': 'caffe',
    'model.img_backbone.dcn': {'type': 'DCNv2', 'deform_groups': 1, 'fallback_on_stride': False},
    'model.img_backbone.stage_with_dcn': (False, False, True, True),
    'model.data_preprocessor.mean': [103.53, 116.28, 123.675],
    'model.data_preprocessor.std': [1.0, 1.0, 1.0],
    'model.data_preprocessor.bgr_to_rgb': False,
    'load_from': R101_START,
}
TINY = {
    'model.bev_grid': (50, 50),
    'train_dataloader.dataset.image_size': (800, 450),
    'train_dataloader.dataset.queue_length': 3,
    'model.img_backbone.depth': 50,
    'model.img_backbone.style': 'pytorch',
    'model.img_backbone.out_indices': (3,),
    'model.img_backbone.init_cfg.type': 'Pretrained',
    'model.img_neck.in_channels': [2048],
    'model.img_neck.num_outs': 1,
    'model.data_preprocessor.mean': [123.675, 116.28, 103.53],
    'model.data_preprocessor.std': [58.395, 57.12, 57.375],
    'model.data_preprocessor.bgr_to_rgb': True,
    f'{TRANSFORMER}.num_feature_levels': 4,
    f'{TRANSFORMER}.encoder.num_layers': 3,
    'load_from': None,
}
PUBLISHED = {
    'bevformer_base': {
        **R101,
        'model.bev_grid': (200, 200),
        'train_dataloader.dataset.image_size': (1600, 900),
        'train_dataloader.dataset.queue_length': 4,
        'model.img_backbone.out_indices': (1, 2, 3),
        'model.img_neck.in_channels': [512, 1024, 2048],
        'model.img_neck.num_outs': 4,
        f'{TRANSFORMER}.encoder.num_layers': 6,
    },
    'bevformer_small': {
        **R101,
        'model.bev_grid': (150, 150),
        'train_dataloader.dataset.image_size': (1280, 720),
        'train_dataloader.dataset.queue_length': 3,
        'model.img_backbone.out_indices': (3,),
        'model.img_neck.in_channels': [2048],
        'model.img_neck.num_outs': 1,
        'model.activation_checkpointing': ('img_backbone',),
        f'{TRANSFORMER}.num_feature_levels': 4,
        f'{TRANSFORMER}.encoder.num_layers': 3,
    },
    'bevformer_tiny': {**FLOAT32, **TINY},
    'bevformer_tiny_fp16': {
        **TINY,
        'optim_wrapper.type': 'AmpOptimWrapper',
        'optim_wrapper.dtype': 'float16',
        'optim_wrapper.loss_scale': 512.0,
        'optim_wrapper.optimizer.lr': 2.8e-4,
        'train_dataloader.batch_size': 2,
        'auto_scale_lr.base_batch_size': 16,
    },
}
# Frames of a training queue (the paper's count), by ablation.
QUEUES = {
    'static': 1,
    'points': 1,
    'global': 1,
    'frames2': 2,
    'frames3': 3,
    'frames5': 5,
    'no_random_drop': 4,
    'no_ego_alignment': 4,
    'query_offsets': 4,
}
STEPS_PER_EPOCH = 3516  # 28 130 keyframes, 8 samples a step
LEAVES = ('bevformer_base', 'bevformer_small', 'bevformer_tiny', 'bevformer_tiny_fp16', 'bevformer_nano')


def config(name: str) -> Config:
    return load_config(str(CONFIGS / f'{name}.py'))


def value(cfg: Config, path: str) -> object:
    for key in path.split('.'):
        cfg = cfg.get(key)
    return cfg


@pytest.mark.parametrize('name', PUBLISHED)
def test_values_are_the_published_ones(name):
    cfg = config(name)
    for path, expected in {**COMMON, **PUBLISHED[name]}.items():
        found = value(cfg, path)
        found = type(expected)(found) if isinstance(expected, list | tuple) else found
        assert found == expected, path


def test_all_ablations_have_their_frames():
    found = {
        path.stem.removeprefix('bevformer_base_'): config(f'ablations/{path.stem}')
        for path in (CONFIGS / 'ablations').glob('*.py')
    }
    assert {name: cfg.train_dataloader.dataset.queue_length for name, cfg in found.items()} == QUEUES
    assert {name for name, cfg in found.items() if not cfg.model.use_history} == {'static', 'points', 'global'}
    assert {name for name, cfg in found.items() if not cfg.train_dataloader.dataset.get('random_drop', True)} == {
        'no_random_drop'
    }


def test_global_attention_is_the_papers_in_size():
    cfg = config('ablations/bevformer_base_global')
    assert tuple(cfg.model.bev_grid) == (100, 100) and cfg.model.img_neck.num_outs == 1
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'


@pytest.mark.parametrize('name', LEAVES)
def test_what_model_and_data_share_is_the_same_in_both(name):
    cfg = config(name)
    datasets = [cfg[f'{part}_dataloader'].dataset for part in ('train', 'val', 'test')]
    for dataset in datasets:
        assert dataset.cameras == CAMERAS and dataset.metainfo.classes == CLASSES
        assert dataset.image_size == datasets[0].image_size and dataset.data_root == cfg.val_evaluator.data_root
    assert cfg.model.num_cameras == len(CAMERAS) and cfg.model.pts_bbox_head.num_classes == len(CLASSES)
    assert datasets[0].point_cloud_range == cfg.model.point_cloud_range


@pytest.mark.parametrize('name', [name for name in LEAVES if name != 'bevformer_tiny_fp16'])  # it inherits all of tiny
def test_each_is_set_in_one_line_of_a_config(name, tmp_path):
    lines = {
        'class_names': "['pedestrian', 'car']",
        'cameras': "['CAM_BACK']",
        'point_cloud_range': '[-20.0, -30.0, -4.0, 20.0, 30.0, 2.0]',
        'image_size': '(160, 90)',
        'bev_grid': '(20, 30)',
    }
    source = CONFIGS / f'{name}.py'
    text = source.read_text()
    text = text.replace("'../_base_/", f"'{CONFIGS.parent / '_base_'}/")
    for variable, new in lines.items():
        before = [line for line in text.splitlines() if line.startswith(f'{variable} = ')]
        assert len(before) == 1, variable
        text = text.replace(before[0], f'{variable} = {new}')
    (tmp_path / 'changed.py').write_text(text)
    cfg = load_config(str(tmp_path / 'changed.py'))
    for part in ('train', 'val', 'test'):
        dataset = cfg[f'{part}_dataloader'].dataset
        assert dataset.metainfo.classes == ['pedestrian', 'car'] and dataset.cameras == ['CAM_BACK']
        assert tuple(dataset.image_size) == (160, 90)
    assert cfg.train_dataloader.dataset.point_cloud_range == [-20.0, -30.0, -4.0, 20.0, 30.0, 2.0]
    cfg.model.img_backbone.update(depth=18, base_channels=4, stem_channels=4, init_cfg=None)
    cfg.model.img_backbone.pop('dcn', None)
    cfg.model.ego_motion = None
    model = MODELS.build(cfg.model)
    head = model.pts_bbox_head
    assert (head.grid.bev_h, head.grid.bev_w) == (20, 30) and head.num_classes == 2 and model.num_cameras == 1
    assert head.grid.point_cloud_range == (-20, -30, -4, 20, 30, 2)
    assert head.box_coder.post_center_range == (-30, -40, -10, 30, 40, 10)


def published_rate(step: int) -> float:
    """The published learning rate of a step: cosine by epoch from 2e-4 to a thousandth, mmcv's linear warm-up."""
    epoch = step // STEPS_PER_EPOCH
    rate = 2e-7 + (2e-4 - 2e-7) * (1 + math.cos(math.pi * epoch / 24)) / 2
    return rate * min(1, 1 / 3 + 2 / 3 * step / 500)


def test_the_learning_rate_is_the_published_one_in_every_step():
    cfg = config('bevformer_base')
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=cfg.optim_wrapper.optimizer.lr)
    ends = {True: cfg.train_cfg.max_epochs, False: cfg.train_cfg.max_epochs * STEPS_PER_EPOCH}
    schedulers = [
        PARAM_SCHEDULERS.build(
            {'end': ends[entry.by_epoch], **entry},
            default_args=dict(optimizer=optimizer, epoch_length=STEPS_PER_EPOCH),
        )
        for entry in cfg.param_scheduler
    ]
    for step in range(24 * STEPS_PER_EPOCH):
        optimizer.step()
        if step < 600 or step % STEPS_PER_EPOCH in (0, 1, STEPS_PER_EPOCH - 1):
            assert optimizer.param_groups[0]['lr'] == pytest.approx(published_rate(step), rel=1e-9), step
        for scheduler in schedulers:
            if not scheduler.by_epoch or (step + 1) % STEPS_PER_EPOCH == 0:
                scheduler.step()
    assert published_rate(STEPS_PER_EPOCH) == pytest.approx(1.991e-4, rel=5e-4)  # as the published logs have it


@pytest.mark.parametrize(
    ('name', 'batch_size', 'rate'), [('bevformer_tiny', 1, 2e-4), ('bevformer_tiny_fp16', 2, 2.8e-4)]
)
def test_both_published_batches_have_their_rate_on_eight_gpus(name, batch_size, rate):
    cfg = config(name)
    assert cfg.train_dataloader.batch_size == batch_size
    assert cfg.optim_wrapper.optimizer.lr * scaling_factor(cfg, 8) == pytest.approx(rate)


def test_the_rule_of_the_root_leads_from_one_to_the_other():
    cfg = load_config(
        str(CONFIGS / 'bevformer_tiny.py'), {'train_dataloader.batch_size': 2, 'auto_scale_lr.rule': 'sqrt'}
    )
    assert cfg.optim_wrapper.optimizer.lr * scaling_factor(cfg, 8) == pytest.approx(2.8e-4, rel=0.011)


def test_positions_start_from_a_standard_normal_distribution():
    cfg = config('bevformer_base')
    cfg.model.img_backbone.update(depth=50, base_channels=4, stem_channels=4)
    cfg.model.img_neck.in_channels = [32, 64, 128]
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    encoding = model.pts_bbox_head.positional_encoding
    for embedding in (encoding.row_embed, encoding.col_embed):
        drawn = embedding.weight
        assert drawn.shape == (200, 128)
        assert abs(drawn.mean()) < 0.03 and abs(drawn.std() - 1) < 0.03 and drawn.abs().max() > 3
