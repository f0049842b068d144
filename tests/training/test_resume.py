"""Stopping at any point and resuming is as if the run had never stopped, bit for bit."""

import csv
import shutil
from itertools import pairwise

import pytest

from bevformer_plugin.weights import read_checkpoint
from tests.helpers.processes import LONG
from tests.training.plants import KillInWrite, Sigterm
from tests.training.training_runs import UNVALIDATED, assert_same, rows, train


@pytest.fixture(scope='module')
def options(small_options):
    """Two epochs with all that is random: dropped frames, colours, masks, dropout; validation after each."""
    return [
        '--cfg-options',
        *small_options,
        'train_cfg.max_epochs=2',
        'param_scheduler.1.end=2',
        'train_cfg.val_interval=1',
        'model.grid_mask._delete_=True',
        'model.grid_mask.prob=0.5',
        'model.bev_encoder.dropout=0.1',
        'model.heads.detection.dropout=0.1',
    ]


@pytest.fixture(scope='module')
def unstopped(options, tmp_path_factory):
    """Work dir of a run that nothing happened to."""
    work_dir = tmp_path_factory.mktemp('unstopped')
    train(LONG, work_dir, *options)
    return work_dir


@pytest.fixture(scope='module')
def stopped(options, tmp_path_factory):
    """Work dir and outputs of a run that was stopped four times."""
    work_dir = tmp_path_factory.mktemp('stopped')
    at_epochs_end = train(LONG, work_dir, *options, 'train_cfg.max_epochs=1')
    resume = ['--resume', *options]
    in_mid_epoch = train(LONG, work_dir, *resume, plant=Sigterm(epoch=1, batch=3), expect=143)
    every_third = ['default_hooks.checkpoint.by_epoch=False', 'default_hooks.checkpoint.interval=3']
    in_a_write = train(LONG, work_dir, *resume, *every_third, plant=KillInWrite(2), expect=-9)
    left = [file.name for file in work_dir.glob('.*')]
    in_validation = train(LONG, work_dir, *resume, plant=Sigterm(epoch=1, batch=4, hook='validation_step'), expect=143)
    return work_dir, [at_epochs_end, in_mid_epoch, in_a_write, in_validation, train(LONG, work_dir, *resume)], left


@pytest.mark.parametrize('part', ['state_dict', 'optimizer_states', 'param_schedulers', 'DetectorDataModule'])
def test_weights_and_optimizer_are_those_of_a_run_that_never_stopped(unstopped, stopped, part):
    ours, theirs = (read_checkpoint(str(work_dir / 'last.ckpt')) for work_dir in (stopped[0], unstopped))
    assert ours['global_step'] == 24
    assert_same(ours[part], theirs[part])


def test_losses_and_scores_are_those_of_a_run_that_never_stopped(unstopped, stopped):
    ours, theirs = rows(stopped[0]), rows(unstopped)
    assert len([row for row in theirs.values() if 'train/loss' in row]) == 24
    assert sum('nuscenes/NDS' in row for row in theirs.values()) == 2
    assert ours == theirs


def test_each_part_says_where_it_goes_on(stopped):
    _, outputs, _ = stopped
    assert 'stopped by SIGTERM after step 16' in outputs[1]
    places = ['epoch 1, after step 12', 'epoch 2, after step 16', 'epoch 2, after step 18', 'epoch 2, after step 24']
    for output, place in zip(outputs[1:], places, strict=True):
        assert f'last.ckpt ({place})' in output
        assert 'not resumable' not in output


def test_a_kill_in_mid_write_leaves_the_checkpoint_before_it(stopped):
    work_dir, _, left = stopped
    assert len(left) == 1 and left[0].startswith('.last.ckpt.')
    assert not list(work_dir.glob('.*'))


def test_the_log_of_a_resumed_run_is_appended(stopped):
    work_dir, _, _ = stopped
    log = (work_dir / 'train.log').read_text()
    marks = ['epoch 1/1', 'after step 12', 'SIGTERM after step 16', 'after step 18', 'SIGTERM after step 24']
    assert all(log.index(first) < log.index(then) for first, then in pairwise(marks))
    assert len(list(work_dir.glob('csv*'))) == 5


def test_a_best_checkpoint_resumes_as_exactly(unstopped, options, tmp_path):
    first = next(file for file in unstopped.glob('csv/metrics.csv'))
    with open(first) as lines:
        scores = [float(row['nuscenes/NDS']) for row in csv.DictReader(lines) if row['nuscenes/NDS']]
    steps = 12 * (1 + scores.index(max(scores)))
    shutil.copy(unstopped / 'best_NDS.ckpt', tmp_path)
    output = train(LONG, tmp_path, '--resume', *options, UNVALIDATED)
    assert f'best_NDS.ckpt (epoch {steps // 12}, after step {steps})' in output
    ours, theirs = (read_checkpoint(str(work_dir / 'last.ckpt')) for work_dir in (tmp_path, unstopped))
    assert_same(ours['state_dict'], theirs['state_dict'])


def test_another_batch_size_in_mid_epoch_is_refused(unstopped, options, tmp_path):
    train(LONG, tmp_path, *options, plant=Sigterm(epoch=0, batch=1), expect=143)
    output = train(LONG, tmp_path, '--resume', *options, 'train_dataloader.batch_size=2', expect=1)
    assert 'of 1 samples a step, not 2' in output.splitlines()[-1]
    output = train(LONG, tmp_path, '--resume', *options, 'train_dataloader.sampler.type=DefaultSampler', expect=1)
    assert 'sampler.type=ResumableSampler' in output.splitlines()[-1]
