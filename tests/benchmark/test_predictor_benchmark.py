"""The benchmark of a step beside its network."""

import json

import pytest

from bevformer_plugin.benchmark.predictor import benchmark_predictor, predictor_table
from bevformer_plugin.configuration import load_config
from bevformer_plugin.errors import InputError
from tests.helpers.processes import run_tool
from tests.helpers.repository import CONFIGS, NANO_WEIGHTS

NANO = CONFIGS / 'bevformer_nano.py'


def test_step_and_network_are_measured_in_every_round(tmp_path):
    out = tmp_path / 'figures.json'
    options = ['--checkpoint', NANO_WEIGHTS, '--rounds', 3, '--no-optimize', '--out', out]
    tool = run_tool('benchmark', 'predictor', NANO, *options)
    assert tool.returncode == 0, tool.output[-2000:]
    report = json.loads(out.read_text())
    step, network = (report['seconds'][name] for name in ('step', 'network alone'))
    assert len(step) == len(network) == 3 and min(network) > 1e-3
    ratios = sorted(one / other for one, other in zip(step, network, strict=True))
    assert report['beyond'] == pytest.approx(ratios[1] - 1)
    assert f'a step takes {100 * report["beyond"]:.1f} % longer' in predictor_table(report)
    assert report['settings']['images'] == [320, 180] and report['settings']['cameras'] == 6


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(InputError, match='rounds must be at least 1, not 0'):
        benchmark_predictor(load_config(NANO), rounds=0)
    options = {'test_dataloader.dataset.cameras': ['left', 'right'], 'model.num_cameras': 2}
    with pytest.raises(InputError, match='nuScenes has no cameras left, right'):
        benchmark_predictor(load_config(NANO, options), optimize=False)
