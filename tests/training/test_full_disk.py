"""A full disk ends a run with the file and the remedy, and the checkpoint before it is whole."""

import resource

import pytest

from bevformer_plugin.training.checkpoints import AtomicCheckpointIO
from bevformer_plugin.weights import read_checkpoint
from tests.helpers.processes import NANO
from tests.training.plants import FullDisk, Sigterm
from tests.training.training_runs import UNVALIDATED, rows, train

SMALL = 200_000  # bytes; a checkpoint of this model has 9 million, the logs of twelve steps a few thousand

LOGS = 1_000


def run(work_dir, options, *arguments, expect, plant=None, changes=()) -> str:
    output = train(NANO, work_dir, *arguments, '--cfg-options', *options, *changes, expect=expect, plant=plant)
    assert 'Traceback' not in output, output
    return output


EVERY_STEP = ['default_hooks.checkpoint.by_epoch=False', 'default_hooks.checkpoint.interval=1']


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before_it(small_options, lightning_run, tmp_path):
    output = run(tmp_path, small_options, expect=1, plant=FullDisk(step=5, limit=SMALL), changes=EVERY_STEP)
    last = output.splitlines()[-1]
    assert last.startswith(f'error: checkpoint {tmp_path / "last.ckpt"} cannot be written (File too large)')
    assert 'the one before it is whole: free space, then go on with --resume' in last
    assert read_checkpoint(str(tmp_path / 'last.ckpt'))['global_step'] == 5
    assert not list(tmp_path.glob('.*'))
    run(tmp_path, small_options, '--resume', expect=0, changes=[UNVALIDATED])
    assert {step: row['train/loss'] for step, row in rows(tmp_path).items() if 'train/loss' in row} == {
        step: row['train/loss'] for step, row in rows(lightning_run).items() if 'train/loss' in row
    }


def test_logs_that_do_not_fit_are_named_and_do_not_end_the_run(small_options, tmp_path):
    run(tmp_path, small_options, expect=143, plant=Sigterm(epoch=0, batch=3))
    # Validation would have workers, whose shared memory the limit holds for as well.
    plant = FullDisk(step=5, limit=LOGS)
    output = run(tmp_path, small_options, '--resume', expect=1, plant=plant, changes=[UNVALIDATED])
    for log in ('tensorboard', 'csv_resumed_1', 'train.log'):
        assert f'{tmp_path / log} ' in output, log
    assert output.splitlines()[-1].startswith(f'error: checkpoint {tmp_path / "last.ckpt"} cannot be written')
    assert read_checkpoint(str(tmp_path / 'last.ckpt'))['global_step'] == 4
    run(tmp_path, small_options, '--resume', expect=0, changes=[UNVALIDATED])
    assert read_checkpoint(str(tmp_path / 'last.ckpt'))['global_step'] == 12


def test_the_first_checkpoint_has_none_before_it(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(OSError, match=r'last\.ckpt cannot be written \(File too large\), there is none before it'):
            AtomicCheckpointIO().save_checkpoint({'text': 'x' * 100}, str(tmp_path / 'last.ckpt'))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())
