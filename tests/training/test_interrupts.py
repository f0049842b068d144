"""Ctrl-C loses nothing, and shows no traceback wherever it comes."""

import os
import signal
import subprocess
import sys
import time

import pytest

from bevformer_plugin.weights import read_checkpoint
from tests.helpers.processes import NANO, last_of_each_option, run_tool
from tests.helpers.repository import REPO
from tests.training.plants import CtrlC, CtrlCBefore, SigtermAtBirth
from tests.training.training_runs import assert_same, rows


@pytest.fixture(scope='module')
def stopped(small_options, tmp_path_factory):
    """Work dir and outputs of a run that was stopped in a step and in validation."""
    work_dir = tmp_path_factory.mktemp('stopped')
    arguments = ('train', NANO, '--work-dir', work_dir, '--cfg-options', *small_options)
    outputs = []
    for how, resume, expected in (
        (CtrlC(epoch=0, batch=4), [], 130),
        (CtrlC(epoch=0, batch=2, hook='validation_step'), ['--resume'], 130),
        (None, ['--resume'], 0),
    ):
        done = run_tool(*arguments[:4], *resume, *arguments[4:], plant=how)
        assert done.returncode == expected, done.output
        outputs.append(done.output)
    return work_dir, outputs


def test_the_step_is_finished_and_the_checkpoint_named(stopped):
    work_dir, outputs = stopped
    assert f'stopped by Ctrl-C after step 5; --resume goes on with {work_dir / "last.ckpt"}' in outputs[0]
    assert 'stopping after this step; Ctrl-C again loses' in outputs[0]
    assert 'stopped by Ctrl-C after step 12' in outputs[1]
    assert not any('Traceback' in output or 'KeyboardInterrupt' in output for output in outputs)


def test_the_run_goes_on_as_if_it_had_not_been_interrupted(stopped, lightning_run):
    ours, theirs = (read_checkpoint(str(folder / 'last.ckpt')) for folder in (stopped[0], lightning_run))
    for part in ('state_dict', 'optimizer_states', 'param_schedulers'):
        assert_same(ours[part], theirs[part])
    assert rows(stopped[0]) == rows(lightning_run)


def test_the_learning_rate_that_a_resumed_run_announces_is_that_of_its_first_step(stopped):
    work_dir, outputs = stopped
    assert f'learning rate {float(rows(work_dir)[5]["train/lr"]):.3g} in the first step from here' in outputs[1]


def test_workers_outlive_a_signal_that_comes_as_they_start(small_options, lightning_run, tmp_path):
    done = run_tool('train', NANO, '--work-dir', tmp_path, '--cfg-options', *small_options, plant=SigtermAtBirth())
    assert done.returncode == 0, done.output
    assert rows(tmp_path) == rows(lightning_run)


def test_several_processes_stop_together(small_options, tmp_path):
    done = run_tool(
        'train',
        NANO,
        '--work-dir',
        tmp_path,
        '--cfg-options',
        *small_options,
        processes=2,
        plant=CtrlC(epoch=0, batch=1, rank=1),
    )
    assert done.returncode == 130 and 'stopped by Ctrl-C after step 2' in done.output, done.output
    assert read_checkpoint(str(tmp_path / 'last.ckpt'))['global_step'] == 2


@pytest.mark.parametrize(
    ('owner', 'method'),
    [('DetectorDataModule', '__init__'), ('DetectorModule', '__init__'), ('DetectorModule', 'configure_optimizers')],
)
def test_before_the_first_step_there_is_one_line_and_no_checkpoint(small_options, tmp_path, owner, method):
    done = run_tool(
        'train',
        NANO,
        '--work-dir',
        tmp_path / 'run',
        '--cfg-options',
        *small_options,
        plant=CtrlCBefore(owner, method),
    )
    assert done.returncode == 130
    assert 'stopped by Ctrl-C; no step was taken' in done.output and 'Traceback' not in done.output
    assert not list(tmp_path.glob('run/*.ckpt')) and not list(tmp_path.glob('run/running.lock'))


@pytest.mark.parametrize(('owner', 'method'), [('DetectorModule', '__init__'), ('DetectorModule', 'test_step')])
def test_testing_ends_with_one_line_and_writes_nothing(small_options, lightning_run, tmp_path, owner, method):
    done = run_tool(
        'test',
        NANO,
        lightning_run / 'last.ckpt',
        '--out',
        tmp_path / 'out' / 'results_nusc.json',
        '--cfg-options',
        *small_options,
        plant=CtrlCBefore(owner, method),
    )
    assert done.returncode == 130
    assert 'stopped by Ctrl-C; nothing was written' in done.output and 'Traceback' not in done.output
    assert not list(tmp_path.glob('out/*'))


def test_mmengines_runner_names_what_to_go_on_with(small_options, tmp_path):
    run = ('train', NANO, '--engine', 'mmengine', '--work-dir', tmp_path)
    options = ('--cfg-options', *small_options, 'train_cfg.max_epochs=2', 'train_cfg.val_begin=3')
    done = run_tool(*run, *options, plant=CtrlCBefore('DetectorDataModule', '__init__'))
    assert done.returncode == 130 and 'stopped by Ctrl-C; no step was taken' in done.output
    process = subprocess.Popen(
        [sys.executable, 'tools/train.py', *last_of_each_option([*map(str, run[1:]), *options])],
        cwd=REPO,
        stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / 'last_checkpoint').is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert f'stopped by Ctrl-C; --resume goes on with {tmp_path / "epoch_1.pth"}' in output
    assert 'Traceback' not in output


@pytest.mark.parametrize('tool', ['train', 'test'])
def test_imports_end_without_a_traceback(tool):
    process = subprocess.Popen(
        [sys.executable, '-X', 'importtime', f'tools/{tool}.py', NANO], cwd=REPO, stderr=subprocess.PIPE, text=True
    )
    for line in process.stderr:
        if 'torch' in line:
            process.send_signal(signal.SIGINT)
            break
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT and 'Traceback' not in errors


def test_a_second_ctrl_c_ends_at_once(small_options, tmp_path):
    done = run_tool(
        'train', NANO, '--work-dir', tmp_path, '--cfg-options', *small_options, plant=Twice(epoch=0, batch=4)
    )
    assert done.returncode == -signal.SIGINT and not (tmp_path / 'last.ckpt').exists()


class Twice(CtrlC):
    """Ctrl-C, and again before the step has ended."""

    def __call__(self) -> None:
        super().__call__()
        killpg = os.killpg

        def kill_twice(group: int, signum: int) -> None:
            killpg(group, signum)
            killpg(group, signum)

        os.killpg = kill_twice
