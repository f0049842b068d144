"""The benchmark of exported files: every version detects in the same frame and is timed."""

import pytest
import torch

from bevformer_plugin.benchmark.onnx_speed import RUNTIME_FLOAT32, RUNTIME_INT8, benchmark_onnx, onnx_table
from bevformer_plugin.benchmark.speed import OPTIMIZED_FLOAT32, OURS
from bevformer_plugin.deployment import computes_in_bfloat16
from tests.helpers.repository import NANO_WEIGHTS


@pytest.fixture
def cfg(load_on_synthetic_world):
    return load_on_synthetic_world('bevformer_nano', image_size=(200, 112))


@pytest.mark.slow
def test_all_versions_are_timed(cfg, synthetic_root):
    for name in ('onnx', 'onnxscript', 'onnxruntime'):
        pytest.importorskip(name)
    report = benchmark_onnx(cfg, str(NANO_WEIGHTS), str(synthetic_root), rounds=2)
    versions = report['versions']
    assert {OURS, OPTIMIZED_FLOAT32, RUNTIME_FLOAT32, RUNTIME_INT8} <= versions.keys()
    assert len(versions) == 4 + computes_in_bfloat16(torch.device('cpu'))
    assert all(len(version['seconds']) == 2 and min(version['seconds']) > 0 for version in versions.values())
    assert versions[OPTIMIZED_FLOAT32]['ratio'] == 1
    assert report['settings']['megabytes'][RUNTIME_INT8] < report['settings']['megabytes'][RUNTIME_FLOAT32]
    assert f'{versions[RUNTIME_INT8]["ratio"]:.2f}' in onnx_table(report)


def test_bad_input_is_refused(cfg, synthetic_root):
    with pytest.raises(ValueError, match='rounds must be at least 1, not 0'):
        benchmark_onnx(cfg, data_root=str(synthetic_root), rounds=0)
    with pytest.raises(FileNotFoundError, match='nowhere'):
        benchmark_onnx(cfg, data_root='nowhere')
