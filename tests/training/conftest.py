"""Options that make the nano config train for seconds on the tiny synthetic world, and runs that tests share."""

import pytest

from tests.helpers.processes import NANO, run_tool


@pytest.fixture(scope='session', autouse=True)
def _one_thread():
    """Processes inherit it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('OMP_NUM_THREADS', '1')
        yield


@pytest.fixture(scope='session')
def small_options(synthetic_root, info_files):
    """``--cfg-options`` for one epoch of 12 steps at 160 x 96 pixels."""
    options = [
        'train_cfg.max_epochs=1',
        'param_scheduler.1.end=1',
        'model.bev_grid=(12,12)',
        'model.pts_bbox_head.num_query=20',
        'default_hooks.logger.interval=1',
        'val_evaluator.version=v1.0-mini',
        'test_evaluator.version=v1.0-mini',
    ]
    for part, split in (('train', 'mini_train'), ('val', 'mini_val'), ('test', 'mini_val')):
        loader = f'{part}_dataloader'
        options += [
            f'{loader}.dataset.data_root={synthetic_root}',
            f'{loader}.dataset.ann_file={info_files[split]}',
            f'{loader}.dataset.image_size=(160,96)',
            f'{loader}.num_workers=1',
        ]
        if part != 'train':
            options += [
                f'{part}_evaluator.data_root={synthetic_root}',
                f'{part}_evaluator.ann_file={info_files[split]}',
            ]
    return options


@pytest.fixture(scope='session')
def lightning_run(small_options, tmp_path_factory):
    """Work dir of one finished Lightning run."""
    work_dir = tmp_path_factory.mktemp('runs') / 'lightning'
    done = run_tool('train', NANO, '--work-dir', work_dir, '--cfg-options', *small_options)
    assert done.returncode == 0, done.output
    (work_dir / 'console.txt').write_text(done.output)
    return work_dir


@pytest.fixture(scope='session')
def mmengine_run(small_options, tmp_path_factory):
    """Work dir of one finished run of MMEngine's Runner."""
    work_dir = tmp_path_factory.mktemp('runs') / 'mmengine'
    done = run_tool('train', NANO, '--engine', 'mmengine', '--work-dir', work_dir, '--cfg-options', *small_options)
    assert done.returncode == 0, done.output
    return work_dir
