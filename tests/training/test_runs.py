"""Real runs of the tools on the synthetic world, under both engines."""
import csv
import json

import pytest
import torch

from bevformer_plugin.evaluation import load_results
from bevformer_plugin.training.checkpoints import read_checkpoint

NANO = 'configs/bevformer/bevformer_nano.py'


def lightning_steps(work_dir) -> list[dict[str, float]]:
    with open(work_dir / 'csv' / 'metrics.csv') as file:
        return [{key.removeprefix('train/'): float(value) for key, value in row.items()
                 if key.startswith('train/') and value} for row in csv.DictReader(file) if row['train/loss']]


def mmengine_steps(work_dir) -> list[dict[str, float]]:
    log = next(work_dir.glob('*/vis_data/scalars.json'))
    return [row for row in map(json.loads, log.read_text().splitlines()) if 'loss' in row]


def test_the_first_step_is_the_same_under_both_engines(lightning_run, mmengine_run):
    ours, theirs = lightning_steps(lightning_run)[0], mmengine_steps(mmengine_run)[0]
    names = [name for name in ours if 'loss' in name]
    assert len(names) == 9
    for name in names:
        assert ours[name] == pytest.approx(theirs[name], rel=1e-6), name


def test_the_learning_rate_follows_mmengines(lightning_run, mmengine_run):
    ours, theirs = (torch.tensor([row['lr'] for row in steps])
                    for steps in (lightning_steps(lightning_run), mmengine_steps(mmengine_run)))
    assert len(ours) == 12 and ours[0] < ours.max()
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)


def test_a_run_leaves_checkpoints_logs_and_its_config(lightning_run):
    files = {path.name for path in lightning_run.iterdir()}
    assert {'last.ckpt', 'best_NDS.ckpt', 'config.py', 'train.log', 'csv', 'tensorboard'} <= files
    checkpoint = torch.load(lightning_run / 'last.ckpt', weights_only=True)
    assert checkpoint['meta']['dataset_meta']['classes'][2] == 'construction_vehicle'
    assert all(not key.startswith('detector.') for key in checkpoint['state_dict'])


def test_both_engines_checkpoints_are_tested_alike(run_tool, small_options, lightning_run, mmengine_run, tmp_path):
    published = next(mmengine_run.glob('epoch_*.pth'))
    for name, checkpoint in (('lightning', lightning_run / 'last.ckpt'), ('mmengine', published)):
        done = run_tool('test', NANO, checkpoint, '--out', tmp_path / name / 'results_nusc.json', '--cfg-options',
                        *small_options)
        assert done.returncode == 0, done.stderr
        assert 'NDS' in done.stdout + done.stderr
        assert len(load_results(tmp_path / name / 'results_nusc.json')) == 12
        summary = json.loads((tmp_path / name / 'metrics_summary.json').read_text())
        assert 0 <= summary['nd_score'] < 0.3
    again = run_tool('test', NANO, checkpoint, '--out', tmp_path / 'mmengine' / 'results_nusc.json')
    assert again.returncode == 1 and '--overwrite' in again.stderr


def test_resume_goes_on_from_the_newest_checkpoint(run_tool, small_options, lightning_run, tmp_path):
    work_dir = tmp_path / 'resumed'
    work_dir.mkdir()
    (work_dir / 'last.ckpt').write_bytes((lightning_run / 'last.ckpt').read_bytes())
    done = run_tool('train', NANO, '--work-dir', work_dir, '--resume', '--cfg-options', *small_options,
                    'train_cfg.max_epochs=2', 'param_scheduler.1.end=2', 'train_cfg.val_interval=2')
    assert done.returncode == 0, done.stderr
    assert 'last.ckpt' in done.stdout + done.stderr
    assert 'epoch 2/2' in (work_dir / 'train.log').read_text()
    state, start = (read_checkpoint(str(path)) for path in (work_dir / 'last.ckpt', lightning_run / 'last.ckpt'))
    assert (state['epoch'], state['global_step']) == (1, 24) and start['global_step'] == 12


@pytest.mark.parametrize(('arguments', 'message'), [
    (['configs/bevformer/bevformer_none.py'], 'bevformer_none.py does not exist'),
    (['configs/_base_/runtime.py'], 'has no model'),
    ([NANO, 'train_dataloader.dataset.data_root=/nowhere'], '/nowhere'),
    ([NANO, 'model.num_cameras=0'], 'num_cameras'),
])
def test_what_cannot_run_is_refused_at_the_door(run_tool, small_options, tmp_path, arguments, message):
    config, *changes = arguments
    done = run_tool('train', config, '--work-dir', tmp_path / 'run', '--cfg-options', *small_options, *changes)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith('error:') and message in done.stderr.splitlines()[-1]


def test_an_existing_run_is_not_overwritten(run_tool, lightning_run):
    before = (lightning_run / 'last.ckpt').stat().st_mtime
    done = run_tool('train', NANO, '--work-dir', lightning_run)
    assert done.returncode == 1 and '--overwrite' in done.stderr
    assert (lightning_run / 'last.ckpt').stat().st_mtime == before
