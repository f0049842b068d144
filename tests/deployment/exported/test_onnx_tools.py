"""The tools that write, test and time exported files, in processes of their own."""

import json
from pathlib import Path

import pytest
import torch

from tests.helpers.processes import NANO, run_tool
from tests.helpers.repository import NANO_WEIGHTS

pytestmark = pytest.mark.usefixtures('onnx_libraries')


@pytest.fixture
def options(synthetic_root: Path, info_files: dict[str, Path]) -> list[str]:
    """``--cfg-options`` that lead the nano config to the tiny synthetic world."""
    data = {'data_root': synthetic_root, 'ann_file': info_files['mini_val']}
    parts = ('train_dataloader.dataset', 'test_dataloader.dataset', 'test_evaluator')
    places = [f'{part}.{key}={value}' for part in parts for key, value in data.items()]
    return ['--cfg-options', *places, 'test_evaluator.version=v1.0-mini', 'test_dataloader.num_workers=1']


def test_the_devkit_scores_the_file_as_the_checkpoint(nano_file: Path, options: list[str], tmp_path: Path):
    summaries = []
    for number, weights in enumerate((NANO_WEIGHTS, nano_file)):
        out = tmp_path / str(number) / 'results_nusc.json'
        done = run_tool('test', NANO, weights, '--out', out, *options)
        assert done.returncode == 0, done.output
        summaries.append(json.loads(out.with_name('metrics_summary.json').read_text()))
    checkpoint, exported = summaries
    assert checkpoint['nd_score'] > 0.3
    for score in ('nd_score', 'mean_ap'):
        assert exported[score] == pytest.approx(checkpoint[score], abs=1e-4)


def test_latency_of_a_stream(nano_file: Path, tmp_path: Path):
    done = run_tool('benchmark', 'stream', nano_file, '--frames', '4', '--out', tmp_path / 'figures.json')
    assert done.returncode == 0, done.output
    report = json.loads((tmp_path / 'figures.json').read_text())
    assert len(report['seconds']) == 4 and min(report['seconds']) > 0
    assert report['percentiles']['p99.9'] == max(report['seconds'])
    assert report['percentiles']['p50'] == sorted(report['seconds'])[1]
    assert f'{1e3 * report["percentiles"]["p90"]:.1f}' in done.output


def test_a_file_of_other_settings_is_refused(nano_file: Path, options: list[str], tmp_path: Path):
    cases = {
        'image_size=(160,96)': 'written for the images of the size 320, 180, the dataset gives 160, 96',
        'cameras=[CAM_FRONT,CAM_BACK]': 'written for the cameras CAM_FRONT, CAM_FRONT_RIGHT',
    }
    for setting, message in cases.items():
        more = [f'test_dataloader.dataset.{setting}', f'model.num_cameras={2 if "cameras" in setting else 6}']
        done = run_tool('test', NANO, nano_file, '--out', tmp_path / 'results_nusc.json', *options, *more)
        assert done.returncode == 1 and message in done.last_line, done.output


def test_weights_that_do_not_fit_are_not_exported(options: list[str], tmp_path: Path):
    content = torch.load(NANO_WEIGHTS, weights_only=True)
    content['state_dict'].popitem()
    torch.save(content, tmp_path / 'cut.pth')
    done = run_tool('export', NANO, tmp_path / 'cut.pth', '--out', tmp_path / 'cut.onnx', *options)
    assert done.returncode == 1 and 'missing' in done.last_line, done.output
    done = run_tool('export', NANO, NANO_WEIGHTS, '--out', tmp_path / 'cut.onnx', '--int8', '99', *options)
    assert done.returncode == 1 and '--int8 takes from 1 to the' in done.last_line, done.output
    assert [path.name for path in tmp_path.iterdir()] == ['cut.pth']
