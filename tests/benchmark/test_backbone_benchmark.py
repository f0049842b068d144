"""The backbone benchmark times ordinary convolutions and every backend of deformable ones."""

import pytest

from bevformer_plugin.benchmark.backbone import ORDINARY, backbone_table, benchmark_backbone
from bevformer_plugin.ops import DEFORM_CONV_BACKENDS


@pytest.fixture
def cfg(load_on_synthetic_world):
    """Small with a narrow ResNet-50-DCN and images that are padded to 64 x 32 pixels."""
    cfg = load_on_synthetic_world('bevformer_small', image_size=(60, 30))
    cfg.model.img_backbone.update(depth=50, base_channels=4)
    return cfg


def test_every_backend_is_timed_beside_ordinary_convolutions(cfg):
    report = benchmark_backbone(cfg, images=2, rounds=2)
    assert report['settings']['images'] == (2, 3, 32, 64)
    versions = report['versions']
    assert set(versions) <= {ORDINARY, *DEFORM_CONV_BACKENDS} and {ORDINARY, 'reference'} <= set(versions)
    for scopes in versions.values():
        assert set(scopes) == {'forward', 'backward'}
        for figures in scopes.values():
            assert len(figures['seconds']) == 2 and min(figures['seconds']) > 0
    assert versions[ORDINARY]['forward']['ratio'] == versions[ORDINARY]['backward']['ratio'] == 1
    assert f'{versions["reference"]["backward"]["ratio"]:.2f}' in backbone_table(report)


def test_bad_input_is_refused(cfg, load_on_synthetic_world):
    with pytest.raises(ValueError, match='rounds must be at least 1, not 0'):
        benchmark_backbone(cfg, rounds=0)
    with pytest.raises(ValueError, match='images must be at least 1, not -1'):
        benchmark_backbone(cfg, images=-1)
    with pytest.raises(ValueError, match=r"bevformer_tiny\.py has no 'dcn'"):
        benchmark_backbone(load_on_synthetic_world('bevformer_tiny'))
