"""Real runs of the tools on the synthetic world, under both engines."""

import hashlib
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bevformer_plugin.evaluation import load_results, read_run_record
from bevformer_plugin.training.callbacks import ValidationPlan
from tests.helpers.processes import NANO, run_tool
from tests.training.training_runs import lightning_steps, mmengine_steps


def test_every_step_is_the_same_under_both_engines(lightning_run, mmengine_run):
    ours, theirs = lightning_steps(lightning_run), mmengine_steps(mmengine_run)
    assert len(ours) == len(theirs) == 12
    names = [name for name in ours[0] if 'loss' in name or name == 'grad_norm']
    assert len(names) == 10
    for step in range(12):
        window = ours[max(0, step - 9) : step + 1]  # MMEngine logs means of ten steps
        for name in names:
            mean = sum(row[name] for row in window) / len(window)
            assert mean == pytest.approx(theirs[step][name], rel=5e-6), (step, name)


def test_the_learning_rate_follows_mmengines(lightning_run, mmengine_run):
    ours, theirs = (
        torch.tensor([row['lr'] for row in steps])
        for steps in (lightning_steps(lightning_run), mmengine_steps(mmengine_run))
    )
    assert len(ours) == 12 and ours[0] < ours.max()
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)


def test_bfloat16_trains_with_a_fused_optimizer_and_clipped_gradients(lightning_run, small_options, tmp_path):
    done = run_tool(
        'train',
        NANO,
        '--work-dir',
        tmp_path / 'run',
        '--precision',
        'bf16-mixed',
        '--cfg-options',
        *small_options,
        'train_cfg.val_begin=2',
    )
    assert done.returncode == 0, done.output
    exact, mixed = (lightning_steps(run) for run in (lightning_run, tmp_path / 'run'))
    assert mixed[0]['loss'] != exact[0]['loss']
    # Rounding decides which untrained peaks become queries, and so the losses of the decoder; these are dense.
    dense = [name for name in exact[0] if name.startswith(('perspective.', 'proposal.'))]
    assert len(dense) == 4
    for step, tolerance in ((0, 0.005), (-1, 0.02)):
        for name in dense:
            assert mixed[step][name] == pytest.approx(exact[step][name], rel=tolerance), (step, name)
    assert mixed[0]['grad_norm'] > 10  # the config clips there


def test_a_run_leaves_checkpoints_logs_and_its_config(lightning_run):
    files = {path.name for path in lightning_run.iterdir()}
    assert {'last.ckpt', 'best_NDS.ckpt', 'config.py', 'train.log', 'csv', 'tensorboard'} <= files
    checkpoint = torch.load(lightning_run / 'last.ckpt', weights_only=True)
    assert checkpoint['meta']['dataset_meta']['classes'][2] == 'construction_vehicle'
    assert all(not key.startswith('detector.') for key in checkpoint['state_dict'])


def test_both_engines_checkpoints_are_tested_alike(small_options, lightning_run, mmengine_run, tmp_path):
    published = next(mmengine_run.glob('epoch_*.pth'))
    for name, checkpoint in (('lightning', lightning_run / 'last.ckpt'), ('mmengine', published)):
        done = run_tool(
            'test', NANO, checkpoint, '--out', tmp_path / name / 'results_nusc.json', '--cfg-options', *small_options
        )
        assert done.returncode == 0, done.output
        assert 'NDS' in done.output
        assert len(load_results(tmp_path / name / 'results_nusc.json')) == 12
        record = read_run_record(tmp_path / name / 'results_nusc.json')
        assert record is not None and record.config == NANO and str(checkpoint) in record.command
        assert record.checkpoint_sha256 == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
        summary = json.loads((tmp_path / name / 'metrics_summary.json').read_text())
        assert 0 <= summary['nd_score'] < 0.3
    again = run_tool('test', NANO, checkpoint, '--out', tmp_path / 'mmengine' / 'results_nusc.json')
    assert again.returncode == 1 and '--overwrite' in again.output


def test_how_parameters_were_initialised_is_for_the_log_alone(lightning_run):
    log, console = (lightning_run / 'train.log').read_text(), (lightning_run / 'console.txt').read_text()
    assert log.count('img_backbone.conv1.weight') == 1 and 'Initialization information' in log
    assert 'img_backbone' not in console and len(console.splitlines()) < 100


def test_throughput_and_waiting_are_logged(lightning_run):
    for row in lightning_steps(lightning_run):
        assert 0 < row['samples_per_second'] < 1000 and 0 < row['data_time'] < 1 / row['samples_per_second']


@pytest.mark.parametrize(
    ('interval', 'begin', 'due'),
    [(1, 1, [1, 2, 3, 4, 5]), (2, 1, [2, 4, 5]), (1, 4, [4, 5]), (2, 3, [4, 5]), (3, 6, [])],
)
def test_validation_is_due_as_under_mmengine(interval, begin, due):
    plan, found = ValidationPlan(interval, begin), []
    for epoch in range(5):
        trainer = SimpleNamespace(current_epoch=epoch, max_epochs=5)
        plan.on_train_epoch_start(trainer, None)
        if (epoch + 1) % trainer.check_val_every_n_epoch == 0:
            found.append(epoch + 1)
    assert found == due


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['configs/bevformer/bevformer_none.py'], 'bevformer_none.py does not exist'),
        (['configs/_base_/runtime.py'], 'has no model'),
        ([NANO, 'train_dataloader.dataset.data_root=/nowhere'], '/nowhere'),
        ([NANO, 'model.num_cameras=0'], 'num_cameras'),
        ([NANO, 'val_evaluator.version=v1.0-trainval'], 'nuScenes tables at'),
        ([NANO, 'val_evaluator.split=mini_train'], 'split mini_val, not mini_train'),
        ([NANO, 'val_dataloader.dataset.test_mode=False'], 'test_mode=True'),
        ([NANO, 'optim_wrapper.type=AmpOptimWrapper'], 'use bf16-mixed, optim_wrapper.optimizer.fused=False'),
        ([NANO, 'val_dataloader.dataset.ann_file={mini_train}'], '12 and 0 are in both'),
    ],
)
def test_what_cannot_run_is_refused_at_the_door(small_options, info_files, tmp_path, arguments, message):
    config, *changes = [argument.format_map(info_files) for argument in arguments]
    done = run_tool('train', config, '--work-dir', tmp_path / 'run', '--cfg-options', *small_options, *changes)
    assert done.returncode == 1
    assert done.last_line.startswith('error:') and message in done.last_line
    assert not list(tmp_path.glob('run/*'))


def test_mmengines_runner_takes_hardware_and_precision_from_the_config(small_options, tmp_path):
    done = run_tool(
        'train',
        NANO,
        '--engine',
        'mmengine',
        '--work-dir',
        tmp_path / 'run',
        '--precision',
        'bf16-mixed',
        '--cfg-options',
        *small_options,
    )
    assert done.returncode == 1 and 'the config decides: launcher' in done.last_line
    assert not (tmp_path / 'run').exists()


def _as_one_of_two() -> None:
    os.environ['WORLD_SIZE'] = '2'


def test_processes_do_not_train_side_by_side_under_mmengine(small_options, tmp_path):
    run = ('train', NANO, '--engine', 'mmengine', '--work-dir', tmp_path / 'run', '--cfg-options', *small_options)
    done = run_tool(*run, plant=_as_one_of_two)
    assert done.returncode == 1 and 'launcher=pytorch joins them' in done.last_line


def test_an_existing_run_is_not_overwritten(lightning_run):
    before = (lightning_run / 'last.ckpt').stat().st_mtime
    done = run_tool('train', NANO, '--work-dir', lightning_run)
    assert done.returncode == 1 and '--overwrite' in done.output
    assert (lightning_run / 'last.ckpt').stat().st_mtime == before


def test_an_optimised_detector_finds_what_the_detector_finds(lightning_run, small_options, tmp_path):
    """In float32 the boxes differ by rounding alone; bfloat16 is another matter, which the benchmark measures."""
    submissions = []
    for name, more in (('plain', ()), ('optimised', ('--optimize', 'float32'))):
        done = run_tool(
            'test', NANO, lightning_run / 'last.ckpt', '--out', tmp_path / name / 'results_nusc.json', '--format-only',
            *more, '--cfg-options', *small_options,
        )  # fmt: skip
        assert done.returncode == 0, done.output
        submissions.append(json.loads((tmp_path / name / 'results_nusc.json').read_text())['results'])
    plain, optimised = submissions
    assert plain.keys() == optimised.keys() and any(plain.values())
    for token, boxes in plain.items():
        for key in ('translation', 'detection_score'):
            expected, found = (np.array([box[key] for box in of_run]) for of_run in (boxes, optimised[token]))
            np.testing.assert_allclose(found, expected, atol=1e-2)
    assert plain != optimised


def test_a_type_that_is_not_for_inference_is_refused(tmp_path):
    done = run_tool('test', NANO, tmp_path / 'none.pth', '--optimize', 'half')
    assert done.returncode == 2 and "invalid choice: 'half' (choose from" in done.output
