"""Initialisation from backbones as FCOS3D and torchvision store them."""

import pytest
import torch
from mmdet3d.registry import MODELS

from bevformer_plugin.configuration import load_config
from bevformer_plugin.weights import initialize
from tests.helpers.reference_files import manifest, published_weights


@pytest.fixture(scope='module')
def detector():
    return MODELS.build(load_config('configs/bevformer/bevformer_nano.py').model)


@pytest.fixture(scope='module')
def dcn_detector():
    """Small with a narrow ResNet-50-DCN."""
    model = load_config('configs/bevformer/bevformer_small.py').model
    model.img_backbone.update(depth=50, base_channels=4, stem_channels=4)
    model.img_neck.in_channels = [model.img_neck.in_channels[0] // 16]
    return MODELS.build(model)


def random_like(module: torch.nn.Module, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(value.shape, generator=generator).to(value.dtype)
        for name, value in module.state_dict().items()
    }


def test_a_bare_resnet(detector, tmp_path, log):
    resnet = random_like(detector.img_backbone, 1)
    torch.save({**resnet, 'fc.weight': torch.zeros(1000, 8), 'fc.bias': torch.zeros(1000)}, tmp_path / 'resnet.pth')
    head = {name: value.clone() for name, value in detector.bev_encoder.state_dict().items()}
    initialize(detector, str(tmp_path / 'resnet.pth'))
    for name, value in detector.img_backbone.state_dict().items():
        assert torch.equal(value, resnet[name]), name
    for name, value in detector.bev_encoder.state_dict().items():
        assert torch.equal(value, head[name]), name
    assert f'{len(resnet)} tensors of {len(resnet) + 2} used (0 of them for the neck)' in log.text
    assert '2 in the file not used: fc.bias, fc.weight' in log.text


@pytest.mark.parametrize('prefixes', [('backbone.', 'neck.'), ('img_backbone.', 'img_neck.')])
def test_fcos3d(dcn_detector, tmp_path, log, prefixes):
    backbone, neck = random_like(dcn_detector.img_backbone, 2), random_like(dcn_detector.img_neck, 3)
    offset = next(name for name in backbone if 'conv_offset.weight' in name)
    bias = next(name for name in neck if name.endswith('bias'))
    state = {prefixes[0] + name: value for name, value in backbone.items() if name != offset}
    state |= {prefixes[1] + name: value for name, value in neck.items()} | {prefixes[1] + bias: torch.zeros(7)}
    state |= {'bbox_head.conv_cls.weight': torch.zeros(3)}
    torch.save({'state_dict': state, 'meta': {}}, tmp_path / 'fcos3d.pth')
    kept = {name: value.clone() for name, value in dcn_detector.state_dict().items()}
    initialize(dcn_detector, str(tmp_path / 'fcos3d.pth'))
    for name, value in dcn_detector.img_backbone.state_dict().items():
        assert torch.equal(value, kept[f'img_backbone.{name}'] if name == offset else backbone[name]), name
    for name, value in dcn_detector.img_neck.state_dict().items():
        assert torch.equal(value, kept[f'img_neck.{name}'] if name == bias else neck[name]), name
    assert f'1 of the backbone not in the file: img_backbone.{offset}' in log.text
    assert f'2 in the file not used: bbox_head.conv_cls.weight, {prefixes[1]}{bias}' in log.text


def test_a_whole_detector_is_used_whole_but_for_its_settings(detector, tmp_path):
    state = random_like(detector, 4)
    torch.save(state, tmp_path / 'whole.pth')
    initialize(detector, str(tmp_path / 'whole.pth'))
    for name, value in detector.state_dict().items():
        # The loss weighs as the config says.
        expected = torch.tensor([1.0] * 8 + [0.2] * 2) if name.endswith('.code_weights') else state[name]
        assert torch.equal(value, expected), name


def test_refused_files(detector, tmp_path):
    torch.save(published_weights(manifest('bevformer_tiny')), tmp_path / 'published.pth')
    with pytest.raises(ValueError, match='published layout: convert it'):
        initialize(detector, str(tmp_path / 'published.pth'))
    torch.save({'pts_bbox_head.transformer.level_embeds': torch.zeros(4, 256)}, tmp_path / 'earlier.pth')
    with pytest.raises(ValueError, match=r'layout of version 0\.1: convert it'):
        initialize(detector, str(tmp_path / 'earlier.pth'))
    torch.save({'bev_encoder.level_embeds': torch.zeros(9, 3)}, tmp_path / 'nothing.pth')
    with pytest.raises(ValueError, match=r'nothing of .*nothing\.pth fits this detector: of its 1 tensors 1 have'):
        initialize(detector, str(tmp_path / 'nothing.pth'))
    broken = {'conv1.weight': torch.full((16, 3, 7, 7), torch.nan)}
    torch.save(broken, tmp_path / 'broken.pth')
    with pytest.raises(ValueError, match=r'NaN or infinite in 1 of 1 tensors \(first: conv1\.weight\)'):
        initialize(detector, str(tmp_path / 'broken.pth'))
    torch.save({'encoder.weight': torch.zeros(3)}, tmp_path / 'other.pth')
    with pytest.raises(ValueError, match=r'has no backbone for this detector: its tensors are named encoder\.weight'):
        initialize(detector, str(tmp_path / 'other.pth'))


def test_frozen_layers_that_the_file_lacks_are_not_left_random(dcn_detector, tmp_path):
    backbone = random_like(dcn_detector.img_backbone, 5)
    frozen = [name for name in backbone if name.startswith('layer1.0.conv')]
    state = {f'backbone.{name}': value for name, value in backbone.items() if name not in frozen}
    torch.save(state, tmp_path / 'part.pth')
    with pytest.raises(
        ValueError, match=rf'lacks {len(frozen)} parameters .* frozen \(first: img_backbone\.layer1\.0\.conv1'
    ):
        initialize(dcn_detector, str(tmp_path / 'part.pth'))
