"""The learning rate follows the samples of a step, alike under both engines."""

import re

import pytest
import torch
from mmdet3d.registry import MODELS

from bevformer_plugin.configuration import load_config
from bevformer_plugin.training.learning_rate import scale_under_mmengine, scaling_factor
from bevformer_plugin.training.parameter_groups import check_parameter_groups
from tests.helpers.processes import NANO, run_tool
from tests.training.training_runs import lightning_steps, mmengine_steps


@pytest.fixture(scope='module')
def nano():
    return MODELS.build(load_config(NANO).model)


@pytest.mark.parametrize(
    ('config', 'batch_size', 'accumulated', 'processes', 'factor'),
    [
        ('bevformer_tiny', 1, 1, 8, 1.0),
        ('bevformer_tiny', 1, 1, 1, 1 / 8),
        ('bevformer_base', 2, 4, 2, 2.0),
        ('bevformer_nano', 1, 1, 1, 1.0),
        ('bevformer_nano', 3, 1, 2, 6.0),
    ],
)
def test_it_is_linear_in_batch_processes_and_accumulation(config, batch_size, accumulated, processes, factor):
    cfg = load_config(
        f'configs/bevformer/{config}.py',
        {'train_dataloader.batch_size': batch_size, 'optim_wrapper.accumulative_counts': accumulated},
    )
    assert scaling_factor(cfg, processes) == factor
    cfg.auto_scale_lr.enable = False
    assert scaling_factor(cfg, processes) == 1.0


@pytest.mark.parametrize(
    ('paramwise', 'message'),
    [
        (
            {'custom_keys': {'img_backbon.conv': {'lr_mult': 0.1}}},
            "has 'img_backbon.conv', which is in the name of no",
        ),
        ({'custom_keys': {'pts_bbox_head': {'lr_mult': 0.1}}}, 'the parts of the model are .*heads.detection'),
        ({'custom_keys': {'backbones': {'lr_mult': 0.1}}}, 'did you mean img_backbone'),
        ({'custom_keys': {'img_backbone': {'lr_mul': 0.1}}}, 'lr_mul has no effect; did you mean lr_mult'),
        ({'custom_keys': {'img_neck': {}, 'img_neck.': {}}}, "'img_neck', which has no effect: longer keys take all"),
        ({'custom_keys': {'img_backbone': 0.1}}, r'is a dict such as dict\(lr_mult=0.1\), got 0.1'),
        ({'norm_decay': 0.0}, 'paramwise_cfg.norm_decay has no effect; did you mean norm_decay_mult'),
    ],
)
def test_groups_of_parameters_that_nothing_is_in_are_refused(nano, paramwise, message):
    optimizer = torch.optim.AdamW(nano.parameters())
    with pytest.raises(ValueError, match=message):
        check_parameter_groups({'paramwise_cfg': paramwise}, nano, optimizer)
    good = {'custom_keys': {'img_backbone': {'lr_mult': 0.1, 'betas': (0.8, 0.9)}, 'bias': {'decay_mult': 0.0}}}
    check_parameter_groups({'paramwise_cfg': good}, nano, optimizer)
    check_parameter_groups({'paramwise_cfg': paramwise, 'constructor': 'Mine'}, nano, optimizer)


@pytest.mark.parametrize('base', [0, -8, 'eight', None, True])
def test_a_base_batch_that_is_none_is_refused(base):
    with pytest.raises(ValueError, match=r'auto_scale_lr\.base_batch_size is a positive number'):
        scaling_factor(load_config(NANO, {'auto_scale_lr.base_batch_size': base}), 1)


@pytest.mark.parametrize(
    ('batch_size', 'accumulated', 'processes', 'factor'),
    [(1, 1, 8, 1.0), (2, 1, 8, 2**0.5), (1, 4, 8, 2.0), (1, 1, 2, 0.5)],
)
def test_it_may_go_with_the_root(batch_size, accumulated, processes, factor):
    cfg = load_config('configs/bevformer/bevformer_tiny.py', {'auto_scale_lr.rule': 'sqrt'})
    cfg.train_dataloader.batch_size, cfg.optim_wrapper.accumulative_counts = batch_size, accumulated
    assert scaling_factor(cfg, processes) == pytest.approx(factor)
    scale_under_mmengine(cfg, processes)
    assert batch_size * processes / cfg.auto_scale_lr.base_batch_size == pytest.approx(factor)  # what its Runner takes


@pytest.mark.parametrize('rule', ['square', 'root', None, 2])
def test_another_rule_is_refused(rule):
    with pytest.raises(ValueError, match=r"auto_scale_lr\.rule is 'linear' or 'sqrt', got"):
        scaling_factor(load_config(NANO, {'auto_scale_lr.rule': rule}), 1)


def test_both_engines_use_the_same_and_say_so(small_options, tmp_path):
    options = [
        '--cfg-options',
        *small_options,
        'train_dataloader.batch_size=2',
        'optim_wrapper.accumulative_counts=3',
        'auto_scale_lr.base_batch_size=4',
        'train_cfg.val_begin=2',
        'param_scheduler.0.start_factor=1.0',
        'param_scheduler.1.eta_min_ratio=1.0',
    ]
    says = {
        'lightning': 'learning rate 0.003 = configured 0.002 x 1.5 (linear rule, base batch of 4 samples); '
        '6 samples a step = batch of 2 x 1 processes x 3 accumulated',
        'mmengine': 'learning rate 0.003 = configured 0.002 x 1.5 (linear rule, base batch of 4 samples)',
    }
    used = {}
    for engine, steps in (('lightning', lightning_steps), ('mmengine', mmengine_steps)):
        done = run_tool('train', NANO, '--engine', engine, '--work-dir', tmp_path / engine, *options)
        assert done.returncode == 0, done.output
        used[engine] = steps(tmp_path / engine)[0]['lr']
        assert says[engine] in done.output
    assert used['lightning'] == pytest.approx(used['mmengine']) == pytest.approx(0.003)
    assert 'learning rate 0.003' in (tmp_path / 'lightning' / 'train.log').read_text()


def test_the_epoch_line_shows_the_rate_that_was_announced_and_not_the_backbones_share(small_options, tmp_path):
    done = run_tool(
        'train', NANO, '--work-dir', tmp_path, '--cfg-options', *small_options, 'train_cfg.val_begin=2',
        "optim_wrapper.paramwise_cfg={'_delete_': True, 'custom_keys': {'img_backbone': {'lr_mult': 0.1}}}",
        'param_scheduler=[]',
    )  # fmt: skip
    assert done.returncode == 0, done.output
    assert 'learning rate 0.002 = configured 0.002 x 1' in done.output
    assert re.search(r'epoch 1/1 .* lr (\S+) ', done.output)[1] == '2.00e-03'
