"""The speed benchmark: both formulations give the same boxes, and every scope is timed."""

import pytest
import torch

from bevformer_plugin.benchmark.speed import (
    COMPILED,
    COMPILED_FLOAT32,
    OURS,
    PLAIN,
    TRAINING,
    benchmark_speed,
    speed_table,
)
from bevformer_plugin.deployment import computes_in_bfloat16
from bevformer_plugin.ops import backend_name
from tests.helpers.repository import NANO_WEIGHTS


@pytest.fixture
def cfg(load_on_synthetic_world):
    return load_on_synthetic_world('bevformer_nano', image_size=(200, 112))


@pytest.mark.slow
def test_versions_agree_and_are_timed(cfg, synthetic_root):
    report = benchmark_speed(cfg, str(NANO_WEIGHTS), str(synthetic_root), rounds=2, device='cpu')
    versions = report['versions']
    assert len(versions) == 3 + computes_in_bfloat16(torch.device('cpu'))
    for name, version in versions.items():
        assert all(len(times) == 2 and min(times) > 0 for times in version['seconds'].values())
        assert (TRAINING in version['seconds']) == (name in (PLAIN, OURS))
        assert version['peak_memory'] > version['memory_before'] > 2**27
    assert set(versions[PLAIN]['ratio'].values()) == {1.0}
    assert versions[OURS]['deviation'] == 0
    assert versions[PLAIN]['deviation'] < 1e-3
    assert versions['optimised, float32']['deviation'] < 1e-3
    table = speed_table(report)
    assert f'{versions[OURS]["ratio"]["BEV"]:.2f}' in table
    assert report['settings']['attention backend'] == backend_name(torch.empty(0))


def test_bad_input_is_refused(cfg, synthetic_root):
    with pytest.raises(ValueError, match='rounds must be at least 1, not 0'):
        benchmark_speed(cfg, data_root=str(synthetic_root), rounds=0)
    with pytest.raises(FileNotFoundError, match='nowhere'):
        benchmark_speed(cfg, data_root='nowhere')
    with pytest.raises(ValueError, match="'auto', 'cpu' or 'cuda', not 'gpu'"):
        benchmark_speed(cfg, data_root=str(synthetic_root), device='gpu')
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match='no GPU that PyTorch can use'):
            benchmark_speed(cfg, data_root=str(synthetic_root), device='cuda')


@pytest.mark.slow
def test_a_compiled_version_detects_the_same(cfg, synthetic_root, device):
    """Small images and few rounds, on a CPU or in ``make test-gpu`` with CUDA graphs."""
    report = benchmark_speed(
        cfg, str(NANO_WEIGHTS), str(synthetic_root), rounds=1, training=False, device=device.type, compiled=True
    )
    name = COMPILED if computes_in_bfloat16(device) else COMPILED_FLOAT32
    version = report['versions'][name]
    assert set(version['seconds']) == {'backbone', 'BEV', 'head', 'decode', 'frame'}
    assert version['deviation'] < (0.3 if name == COMPILED else 1e-3)
    assert report['settings']['device'] == device.type
    assert f'{1 / version["seconds"]["frame"][0]:.2f} frames/s' in speed_table(report)
