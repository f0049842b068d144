"""Several real processes (gloo on CPU) train and evaluate like one."""

import csv
import os
import subprocess
import sys

import pytest
import torch

from bevformer_plugin.weights import read_checkpoint
from tests.helpers.processes import NANO, run_tool
from tests.helpers.repository import REPO
from tests.training.plants import Sigterm
from tests.training.training_runs import SGD, UNVALIDATED, final_weights, summary


@pytest.fixture(scope='module')
def one_process(small_options, lightning_run, tmp_path_factory):
    """Folder of one process's evaluation."""
    return evaluate(1, small_options, lightning_run, tmp_path_factory.mktemp('one'))


def evaluate(processes, options, run, folder):
    done = run_tool(
        'test',
        NANO,
        run / 'last.ckpt',
        '--out',
        folder / 'results_nusc.json',
        '--cfg-options',
        *options,
        processes=processes,
    )
    assert done.returncode == 0, done.output
    return folder


@pytest.mark.parametrize('processes', [2, 4])
def test_scores_do_not_depend_on_the_number_of_processes(
    one_process, small_options, lightning_run, tmp_path, processes
):
    evaluate(processes, small_options, lightning_run, tmp_path)  # of two scenes
    assert summary(tmp_path) == summary(one_process)
    assert (tmp_path / 'results_nusc.json').read_bytes() == (one_process / 'results_nusc.json').read_bytes()


def test_two_processes_train_like_one_with_twice_the_batch(small_options, tmp_path):
    options = [*small_options, *SGD, 'model.img_backbone.norm_eval=True', 'train_cfg.val_begin=2']
    first, second = final_weights(NANO, tmp_path / 'two', options, processes=2, batch_size=1)
    (one,) = final_weights(NANO, tmp_path / 'one', options, processes=1, batch_size=2)
    for name in ('two', 'one'):
        run = tmp_path / name / 'run'
        assert read_checkpoint(str(run / 'last.ckpt'))['global_step'] == 6
        assert not (run / 'best_NDS.ckpt').exists()  # val_begin
    assert all(torch.equal(first[name], second[name]) for name in first)
    torch.testing.assert_close(first, one, rtol=0, atol=1e-6)


@pytest.fixture(scope='module')
def three_processes(small_options, tmp_path_factory):
    """Work dirs of a run of three processes on two scenes, and of one that was stopped and resumed."""
    options = ['--cfg-options', *small_options, 'model.bev_encoder.dropout=0.1', 'model.heads.detection.dropout=0.1']
    unstopped, stopped = (tmp_path_factory.mktemp(name) for name in ('unstopped', 'stopped'))
    for work_dir, more, plant, expected in (
        (unstopped, [], None, 0),
        (stopped, [UNVALIDATED], Sigterm(epoch=0, batch=1, rank=2), 143),
        (stopped, [UNVALIDATED, '--resume'], None, 0),
    ):
        done = run_tool('train', NANO, '--work-dir', work_dir, *options, *more, processes=3, plant=plant)
        assert done.returncode == expected, done.output
    return unstopped, stopped


def test_a_process_without_scene_takes_part_in_validation(three_processes, small_options, tmp_path):
    with open(three_processes[0] / 'csv' / 'metrics.csv') as lines:
        scores = [float(row['nuscenes/NDS']) for row in csv.DictReader(lines) if row['nuscenes/NDS']]
    evaluate(1, small_options, three_processes[0], tmp_path)
    assert scores == [pytest.approx(summary(tmp_path)['nd_score'], rel=1e-6)]


def test_sigterm_to_any_process_stops_all_and_they_resume_exactly(three_processes):
    unstopped, stopped = (read_checkpoint(str(work_dir / 'last.ckpt')) for work_dir in three_processes)
    assert 'stopped by SIGTERM after step 2' in (three_processes[1] / 'train.log').read_text()
    assert unstopped['global_step'] == stopped['global_step'] == 4
    torch.testing.assert_close(stopped['state_dict'], unstopped['state_dict'], rtol=0, atol=0)


def test_processes_started_by_lightning_speak_with_one_voice(small_options, tmp_path):
    work_dir = tmp_path / 'run'
    done = subprocess.run(
        [
            sys.executable,
            'tools/train.py',
            NANO,
            '--work-dir',
            work_dir,
            '--devices',
            '2',
            '--accelerator',
            'cpu',
            '--cfg-options',
            *small_options,
        ],
        cwd=REPO,
        text=True,
        capture_output=True,
        env={**os.environ},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('epoch 1/1') == (work_dir / 'train.log').read_text().count('epoch 1/1') == 1
    assert done.stdout.count('length of training dataset') == 1
    assert 'sync_dist' not in done.stderr  # every process has all scores
    assert read_checkpoint(str(work_dir / 'last.ckpt'))['global_step'] == 6
    with open(work_dir / 'csv' / 'metrics.csv') as lines:
        assert all(float(row['train/samples_per_second']) > 0 for row in csv.DictReader(lines) if row['train/loss'])
