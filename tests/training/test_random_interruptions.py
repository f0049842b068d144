"""A run that is interrupted ten times, at random moments and in every way, ends as an undisturbed one."""

import random
import signal

import pytest

from bevformer_plugin.weights import read_checkpoint
from tests.helpers.processes import LONG, run_tool
from tests.training.plants import AfterSteps, FullDisk, KillInWrite
from tests.training.training_runs import assert_same

SEED = 0
KILLED, CTRL_C, TERMINATED, FULL = -signal.SIGKILL, 130, 143, 1


def accidents(draw: random.Random) -> list:
    """Ten, as plants and the exit status that belongs to each."""

    def signalled(signum: int) -> AfterSteps:
        return AfterSteps(draw.randrange(3), draw.uniform(0, 0.5), signum)

    planned = [
        *((signalled(signal.SIGINT), CTRL_C) for _ in range(3)),
        *((signalled(signal.SIGTERM), TERMINATED) for _ in range(2)),
        *((signalled(signal.SIGKILL), KILLED) for _ in range(2)),
        (KillInWrite(draw.randrange(1, 3)), KILLED),
    ]
    draw.shuffle(planned)
    return [*planned, (FullDisk(step=None, limit=200_000), FULL), (FullDisk(step=None, limit=0), FULL)]


@pytest.mark.slow
def test_ten_random_interruptions_change_nothing(small_options, tmp_path):
    options = [
        *small_options,
        'train_cfg.max_epochs=3',
        'param_scheduler.1.end=3',
        'train_cfg.val_interval=1',
        'default_hooks.checkpoint.by_epoch=False',
        'default_hooks.checkpoint.interval=1',
        'model.pts_bbox_head.transformer.dropout=0.1',
    ]
    undisturbed = tmp_path / 'undisturbed'
    done = run_tool('train', LONG, '--work-dir', undisturbed, '--cfg-options', *options)
    assert done.returncode == 0, done.output
    work_dir, steps = tmp_path / 'disturbed', []
    for plant, status in accidents(random.Random(SEED)):
        last = work_dir / 'last.ckpt'
        how = '--resume' if last.is_file() else '--overwrite'
        done = run_tool('train', LONG, '--work-dir', work_dir, how, '--cfg-options', *options, plant=plant)
        assert done.returncode == status, (plant, done.output)
        if status == FULL:
            assert done.last_line.startswith(f'error: checkpoint {last} cannot be written'), done.output
        assert 'Traceback' not in done.output, (plant, done.output)
        steps.append(read_checkpoint(str(last))['global_step'] if last.is_file() else 0)
    assert len(steps) == 10 and steps == sorted(steps) and 0 < steps[-1] < 36
    done = run_tool('train', LONG, '--work-dir', work_dir, '--resume', '--cfg-options', *options)
    assert done.returncode == 0, done.output
    ours, theirs = (read_checkpoint(str(folder / 'last.ckpt')) for folder in (work_dir, undisturbed))
    for part in ('state_dict', 'optimizer_states', 'param_schedulers'):
        assert_same(ours[part], theirs[part])
    assert not [path.name for path in work_dir.iterdir() if path.name.startswith('.')]
