"""Runs are counted in epochs, and leave curves and the best checkpoint however short they are."""

import csv
import shutil

import pytest

from bevformer_plugin.configuration import load_config
from bevformer_plugin.training import check_testing, check_training
from bevformer_plugin.weights import read_checkpoint
from tests.helpers.processes import NANO, run_tool
from tests.helpers.repository import REPO

SAVE_BEST = 'default_hooks = dict(checkpoint=dict(save_best={}))'
LOOP = "train_cfg = dict({delete}type='IterBasedTrainLoop', max_iters=2, val_interval=2)\n"


@pytest.mark.parametrize('delete', ['', '_delete_=True, '])
def test_a_loop_of_iterations_is_refused_with_the_remedy(tmp_path, delete):
    config = tmp_path / 'config.py'
    config.write_text(f"_base_ = ['{REPO / NANO}']\n" + LOOP.format(delete=delete))
    with pytest.raises(ValueError, match=r'type=IterBasedTrainLoop, max_iters=2.* set train_cfg\.max_epochs'):
        check_training(load_config(str(config)))


@pytest.mark.parametrize(
    ('name', 'value', 'message'),
    [
        ('train_cfg.max_epochs', 0, r'train_cfg\.max_epochs is a whole number from 1, got 0'),
        ('train_cfg.max_epochs', -3, r'train_cfg\.max_epochs is a whole number from 1, got -3'),
        ('train_cfg.max_epochs', 2.5, r'train_cfg\.max_epochs is a whole number from 1, got 2\.5'),
        ('train_cfg.max_epochs', 'three', r"train_cfg\.max_epochs is a whole number from 1, got 'three'"),
        ('train_cfg.val_interval', 0, r'train_cfg\.val_interval is a whole number from 1, got 0'),
        ('train_cfg.val_interval', -1, r'train_cfg\.val_interval is a whole number from 1, got -1'),
        ('train_cfg.val_begin', 0, r'train_cfg\.val_begin is a whole number from 1, got 0'),
        ('train_cfg.by_epoch', False, r'counts iterations \(by_epoch=False\); set max_epochs'),
        ('train_cfg.max_iters', 10, r'max_iters=10.* set train_cfg\.max_epochs'),
        ('train_cfg.max_epoch', 4, r'train_cfg\.max_epoch\b'),
        ('train_cfg.dynamic_intervals', [(2, 1)], r'train_cfg\.dynamic_intervals=.* has no effect'),
        ('train_cfg', {'_delete_': True, 'by_epoch': True}, r'train_cfg has no max_epochs'),
        (
            'optim_wrapper.accumulative_counts',
            0,
            r'optim_wrapper\.accumulative_counts is a whole number from 1, got 0',
        ),
        ('train_dataloader.batch_size', 0, r'train_dataloader\.batch_size is a whole number from 1, got 0'),
        ('val_dataloader.num_workers', -2, r'val_dataloader\.num_workers is a whole number from 0, got -2'),
        ('default_hooks.logger.interval', 0, r'default_hooks\.logger\.interval is a whole number from 1, got 0'),
        ('resume', True, r'resume: give --resume instead'),
    ],
)
def test_counts_that_make_no_sense_are_refused(name, value, message):
    with pytest.raises(ValueError, match=message):
        check_training(load_config(NANO, {name: value}))


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ("work_dir = 'x'", "work_dir='x' in a config has no effect: give --work-dir"),
        ('randomness = dict(seed=7)', 'give --seed on the command line'),
        ('val_dataloader = dict(num_workers=0)', 'set val_dataloader.persistent_workers=False as well'),
        ('val_evaluator = dict(format_only=True)', 'leaves a validation without the score'),
        ('val_dataloader = dict(drop_last=True)', 'val_dataloader.drop_last=True leaves frames out'),
        (SAVE_BEST.format("'nuscenes/mATE'"), 'would keep the worst checkpoint: .* nuscenes/mATE is better the less'),
        (SAVE_BEST.format("'nuscenes/NDSS'"), "save_best='nuscenes/NDSS' is no score of val_evaluator"),
        (SAVE_BEST.format("'nuscenes/mAP', rule='less'"), 'nuscenes/mAP is better the greater'),
    ],
)
def test_settings_that_would_be_ignored_or_mislead(tmp_path, text, message):
    (tmp_path / 'child.py').write_text(f"_base_ = ['{REPO / NANO}']\n{text}\n")
    with pytest.raises(ValueError, match=message):
        check_training(load_config(str(tmp_path / 'child.py')))


@pytest.mark.parametrize('save', ["'nuscenes/AP/car'", "'nuscenes/mATE', rule='less'"])
def test_a_best_checkpoint_by_a_score_of_ones_own(tmp_path, save):
    (tmp_path / 'child.py').write_text(f"_base_ = ['{REPO / NANO}']\n{SAVE_BEST.format(save)}\n")
    check_training(load_config(str(tmp_path / 'child.py')))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'test_evaluator.results_path': 'a.json'}, "results_path='a.json' has no effect: give --out"),
        ({'test_evaluator.format_only': True}, 'format_only=True has no effect: give --format-only'),
        ({'test_cfg.fp16': True}, 'test_cfg.fp16 has no effect'),
    ],
)
def test_settings_of_a_test_that_would_be_ignored(options, message):
    with pytest.raises(ValueError, match=message):
        check_testing(load_config(NANO, options))


def test_a_config_without_a_test_set_cannot_test():
    cfg = load_config(NANO)
    check_testing(cfg)
    cfg.test_evaluator = None
    with pytest.raises(ValueError, match='cannot test: it lacks test_evaluator'):
        check_testing(cfg)


def test_the_epoch_line_has_the_mean_loss_of_its_batches(small_options, tmp_path):
    options = [*small_options, 'optim_wrapper.accumulative_counts=2', 'train_cfg.val_begin=9']
    done = run_tool('train', NANO, '--work-dir', tmp_path, '--cfg-options', *options)
    assert done.returncode == 0, done.output
    with open(tmp_path / 'csv' / 'metrics.csv') as file:
        first = next(float(row['train/loss']) for row in csv.DictReader(file) if row['train/loss'])
    (line,) = [line for line in done.output.splitlines() if 'epoch 1/1' in line]
    # The loss falls in twelve batches, but not to the half, which is what a share of two batches would be.
    assert 0.65 * first < float(line.split('loss ')[1].split()[0]) < 1.3 * first


def test_a_run_shorter_than_the_logging_interval_leaves_curves(small_options, tmp_path):
    done = run_tool(
        'train',
        NANO,
        '--work-dir',
        tmp_path,
        '--cfg-options',
        *small_options,
        'default_hooks.logger.interval=50',
        'train_cfg.max_epochs=2',
        'train_cfg.val_begin=3',
        'train_dataloader.batch_size=4',
    )
    assert done.returncode == 0, done.output
    with open(tmp_path / 'csv' / 'metrics.csv') as lines:
        rows = list(csv.DictReader(lines))
    assert [int(row['step']) for row in rows] == [2, 5]  # the last of each epoch of three
    assert all(float(row['train/loss']) > 0 and float(row['train/lr']) > 0 for row in rows)
    assert next(tmp_path.glob('tensorboard/events*')).stat().st_size > 1000


def test_the_best_score_is_remembered_where_the_folder_was_moved(lightning_run, small_options, tmp_path):
    work_dir = tmp_path / 'moved'
    shutil.copytree(lightning_run, work_dir)
    before = (work_dir / 'best_NDS.ckpt').read_bytes()
    options = [*small_options, 'train_cfg.max_epochs=2']
    done = run_tool('train', NANO, '--work-dir', work_dir, '--resume', '--cfg-options', *options)
    assert done.returncode == 0, done.output
    callbacks = read_checkpoint(str(work_dir / 'last.ckpt'))['callbacks']
    state = next(value for key, value in callbacks.items() if key.startswith('BestCheckpoint'))
    first = next(
        value
        for key, value in read_checkpoint(str(lightning_run / 'best_NDS.ckpt'))['callbacks'].items()
        if key.startswith('BestCheckpoint')
    )
    assert state['best_model_path'] == str(work_dir / 'best_NDS.ckpt')
    assert state['best_model_score'] >= first['best_model_score']
    unbeaten = state['best_model_score'] == first['best_model_score']
    assert ((work_dir / 'best_NDS.ckpt').read_bytes() == before) == unbeaten


def test_a_submission_that_could_not_be_written_is_refused_before_testing(small_options, lightning_run, tmp_path):
    (tmp_path / 'file').touch()
    for out in (tmp_path / 'file' / 'results_nusc.json', tmp_path):
        done = run_tool(
            'test', NANO, lightning_run / 'last.ckpt', '--out', out, '--overwrite', '--cfg-options', *small_options
        )
        assert done.returncode == 1
        assert done.last_line.startswith(f'error: {out} cannot be written') and '--out' in done.last_line
