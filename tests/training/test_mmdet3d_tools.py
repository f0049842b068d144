"""MMDetection3D's own ways in: its tools/train.py and tools/test.py, unmodified, and ``mmdet3d.apis.init_model``."""

import json
from pathlib import Path

import mmdet3d
import numpy as np
import pytest
from mmdet3d.apis import init_model
from mmdet3d.registry import DATASETS, METRICS, MODELS
from mmengine.dataset import pseudo_collate

from bevformer_plugin.configuration import load_config, parse_config_options
from tests.helpers.installation import run_installed
from tests.helpers.processes import NANO, run_tool
from tests.helpers.repository import NANO_WEIGHTS, REPO

TOOLS = Path(mmdet3d.__file__).parent / '.mim' / 'tools'
STARTS = """
import runpy
import sys

for tool in sys.argv[1:]:
    sys.argv = [tool, '--help']
    try:
        runpy.run_path(tool, run_name='__main__')
    except SystemExit as end:
        print('ended', end.code)
print('plugin', 'bevformer_plugin' in sys.modules)
"""


def test_its_train_and_test_tools_run_our_configs(installed_python, small_options, tmp_path):
    """It goes on from trained weights, so that there is a score to compare."""
    train, test = tmp_path / 'train', tmp_path / 'test'
    options = [
        '--cfg-options',
        *small_options,
        'model.bev_grid=(64,64)',
        'model.heads.detection.queries.num_query=150',
        f'load_from={NANO_WEIGHTS}',
        'optim_wrapper.optimizer.lr=1e-6',
    ]
    for tool, *arguments in (
        ('train.py', REPO / NANO, '--work-dir', train),
        ('test.py', REPO / NANO, train / 'epoch_1.pth', '--work-dir', test),
    ):
        run_installed(installed_python, TOOLS / tool, *arguments, *options, folder=tmp_path)
    steps = [json.loads(line) for line in next(train.glob('*/vis_data/scalars.json')).read_text().splitlines()]
    assert sum('loss' in step for step in steps) == 12
    tested = json.loads(next(test.glob('*/*.json')).read_text())
    assert tested['nuscenes/NDS'] == pytest.approx(steps[-1]['nuscenes/NDS'], abs=1e-6) and tested['nuscenes/NDS'] > 0


@pytest.mark.slow
def test_its_test_tool_reads_data_in_spawned_workers(installed_python, small_options, tmp_path):
    spawned = ['env_cfg.mp_cfg.mp_start_method=spawn', 'test_dataloader.num_workers=1']
    options = [
        '--cfg-options',
        *small_options,
        'model.bev_grid=(64,64)',
        'model.heads.detection.queries.num_query=150',
    ]
    arguments = [TOOLS / 'test.py', REPO / NANO, NANO_WEIGHTS, '--work-dir', tmp_path / 'test', *options, *spawned]
    run_installed(installed_python, *arguments, folder=tmp_path)
    assert json.loads(next((tmp_path / 'test').glob('*/*.json')).read_text())['nuscenes/NDS'] > 0


def test_its_other_tools_start(installed_python, tmp_path):
    """Those that run from a wheel, in which they are not a package; they import mmdet3d first and the plugin never."""
    names = ('print_config', 'browse_dataset', 'fuse_conv_bn', 'visualize_results')
    tools = [*(TOOLS / 'misc' / f'{name}.py' for name in names), TOOLS / 'analysis_tools' / 'get_flops.py']
    lines = run_installed(installed_python, '-c', STARTS, *tools, folder=tmp_path).splitlines()
    assert [line for line in lines if line.startswith(('ended', 'plugin'))] == ['ended 0'] * 5 + ['plugin False']


def test_a_model_of_init_model_detects_what_our_tool_does(lightning_run, small_options, tmp_path):
    done = run_tool(
        'test', NANO, lightning_run / 'last.ckpt', '--out', tmp_path / 'ours' / 'results_nusc.json', '--format-only',
        '--cfg-options', *small_options,
    )  # fmt: skip
    assert done.returncode == 0, done.output
    cfg = load_config(str(REPO / NANO), parse_config_options(small_options))
    model = init_model(cfg, str(lightning_run / 'last.ckpt'), device='cpu')
    assert model.dataset_meta['classes'] == cfg.class_names and len(model.dataset_meta['palette']) == 10

    cfg.test_evaluator.update(results_path=str(tmp_path / 'theirs' / 'results_nusc.json'), format_only=True)
    dataset, metric = DATASETS.build(cfg.test_dataloader.dataset), METRICS.build(cfg.test_evaluator)
    metric.dataset_meta = model.dataset_meta
    for item in dataset:
        batch = pseudo_collate([item])
        metric.process(batch, [sample.to_dict() for sample in model.test_step(batch)])
    metric.evaluate(len(dataset))
    ours, theirs = (
        json.loads((tmp_path / name / 'results_nusc.json').read_text())['results'] for name in ('ours', 'theirs')
    )
    assert len(ours) == 12 and ours.keys() == theirs.keys()
    for token, boxes in ours.items():
        assert [box['detection_name'] for box in boxes] == [box['detection_name'] for box in theirs[token]]
        for key in ('translation', 'size', 'rotation', 'velocity', 'detection_score'):
            np.testing.assert_allclose([box[key] for box in boxes], [box[key] for box in theirs[token]], atol=1e-4)


def test_init_model_needs_no_data(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    model = init_model(str(REPO / NANO), str(REPO / 'projects/synthetic_world/bevformer_nano.pth'), device='cpu')
    assert not model.training and model.dataset_meta['classes'][0] == 'car'


def test_training_settings_of_other_detectors_are_refused():
    cfg = load_config(str(REPO / NANO), {'model.train_cfg': {'pts': None}})
    with pytest.raises(ValueError, match=r"model.train_cfg=\{'pts': None\} has no effect"):
        MODELS.build(cfg.model)
