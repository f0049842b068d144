"""What never learns has to start from a file."""

import pytest
from mmdet3d.registry import MODELS

from bevformer_plugin.configuration import load_config
from bevformer_plugin.training.initial_weights import check_initial_weights
from tests.helpers.processes import NANO, run_tool

FROZEN = ['model.img_backbone.frozen_stages=1', 'model.img_backbone.norm_cfg.requires_grad=False']
PRETRAINED = dict(type='Pretrained', checkpoint='resnet.pth')


def detector(changes: dict | None = None):
    return MODELS.build(load_config(NANO, changes).model)


@pytest.mark.parametrize(
    ('changes', 'layers'),
    [
        ({'model.img_backbone.frozen_stages': 1}, 'img_backbone.conv1, img_backbone.bn1, img_backbone.layer1.0.conv1'),
        ({'model.img_backbone.norm_cfg.requires_grad': False}, 'img_backbone.bn1, img_backbone.layer1.0.bn1'),
    ],
)
def test_frozen_layers_without_a_start_are_refused(tmp_path, changes, layers):
    model = detector(changes)
    with pytest.raises(ValueError, match='nothing initialises them') as error:
        check_initial_weights(model, None, resuming=False)
    assert layers in str(error.value) and 'set load_from' in str(error.value)
    assert 'r101_dcn_fcos3d_pretrain.pth' in str(error.value)
    (tmp_path / 'start.pth').touch()
    check_initial_weights(model, str(tmp_path / 'start.pth'), resuming=False)
    check_initial_weights(model, None, resuming=True)


@pytest.mark.parametrize('init_cfg', [PRETRAINED, [dict(type='Kaiming', layer='Conv2d'), PRETRAINED]])
def test_a_pretrained_backbone_is_a_start(init_cfg):
    check_initial_weights(
        detector({'model.img_backbone.frozen_stages': 1, 'model.img_backbone.init_cfg': init_cfg}), None, False
    )


def test_layers_that_learn_need_none():
    check_initial_weights(detector(), None, resuming=False)


@pytest.mark.parametrize('name', ['bevformer_small', 'bevformer_base', 'bevformer_tiny'])
def test_the_published_models_are_refused_without_theirs(name):
    cfg = load_config(f'configs/bevformer/{name}.py', {'model.img_backbone.init_cfg': None})
    cfg.model.img_backbone.update(depth=50, base_channels=4, stem_channels=4)
    cfg.model.img_neck.in_channels = [width // 16 for width in cfg.model.img_neck.in_channels]
    with pytest.raises(ValueError, match=r'layers never learn .*img_backbone\.conv1'):
        check_initial_weights(MODELS.build(cfg.model), None, resuming=False)


def test_a_start_that_is_not_there_is_named():
    with pytest.raises(FileNotFoundError, match=r'load_from: nowhere\.pth does not exist; download it'):
        check_initial_weights(detector(), 'nowhere.pth', resuming=False)


@pytest.mark.parametrize('engine', ['lightning', 'mmengine'])
def test_both_engines_refuse(small_options, tmp_path, engine):
    done = run_tool(
        'train', NANO, '--engine', engine, '--work-dir', tmp_path / 'run', '--cfg-options', *small_options, *FROZEN
    )
    assert done.returncode == 1
    assert done.last_line.startswith('error:') and 'nothing initialises them' in done.last_line
    assert not [*tmp_path.rglob('*.ckpt'), *tmp_path.rglob('*.pth')]
