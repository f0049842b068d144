"""What may differ when a run goes on: it is refused with both values, or taken over because that was asked for."""

import shutil

import pytest
import torch
from mmdet3d.registry import PARAM_SCHEDULERS
from torch import nn

from bevformer_plugin.configuration import load_config
from bevformer_plugin.training.run_settings import Place, check_settings, run_settings
from bevformer_plugin.weights import read_checkpoint
from tests.helpers.processes import NANO, run_tool
from tests.training.training_runs import lightning_steps, mmengine_steps

SGD = {'optim_wrapper.optimizer': {'_delete_': True, 'type': 'SGD', 'lr': 0.002}}
EPOCHS_END, MID_EPOCH = Place(1, 0), Place(1, 5)
ENGINES = {'lightning': ('last.ckpt', lightning_steps), 'mmengine': ('epoch_1.pth', mmengine_steps)}


def settings(changes: dict | None = None, processes: int = 1, precision: str = '32-true', seed: int = 0) -> dict:
    return run_settings(load_config(NANO, changes), processes, precision, seed, training_samples=12)


def refusal(now: dict, place: Place = EPOCHS_END, restart_schedule: bool = False) -> str:
    with pytest.raises(ValueError) as refused:
        check_settings(settings(), now, place, 'run/last.ckpt', restart_schedule)
    return str(refused.value)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'optim_wrapper.optimizer.lr': 5e-4}, 'optim_wrapper.optimizer.lr=0.002 (now 0.0005)'),
        ({'optim_wrapper.optimizer.weight_decay': 0.1}, 'optim_wrapper.optimizer.weight_decay=0.01 (now 0.1)'),
        ({'optim_wrapper.optimizer.betas': (0.8, 0.99)}, 'optim_wrapper.optimizer.betas.0=0.9 (now 0.8)'),
        ({'optim_wrapper.clip_grad.max_norm': 35}, 'optim_wrapper.clip_grad.max_norm=10 (now 35)'),
        ({'optim_wrapper.accumulative_counts': 2}, 'optim_wrapper.accumulative_counts=1 (now 2)'),
        ({'param_scheduler.1.end': 5}, 'param_scheduler.1.end=3 (now 5)'),
        ({'param_scheduler': []}, 'param_scheduler.0.type=LinearLR (now None)'),
        ({'auto_scale_lr.base_batch_size': 4}, 'auto_scale_lr.base_batch_size=1 (now 4)'),
        ({'auto_scale_lr.enable': False}, 'auto_scale_lr.enable=True (now False)'),
        ({'train_dataloader.batch_size': 2}, 'train_dataloader.batch_size=1 (now 2)'),
        ({'train_dataloader.dataset.queue_length': 4}, 'train_dataloader.dataset.queue_length=2 (now 4)'),
        (
            {'train_dataloader.dataset.ann_file': '/elsewhere/mine.pkl'},
            'train_dataloader.dataset.ann_file=nuscenes_infos_temporal_train.pkl (now mine.pkl)',
        ),
    ],
)
def test_another_schedule_batch_or_data_set_needs_to_be_asked_for(changes, message):
    now = settings(changes)
    said = refusal(now)
    assert said.startswith('run/last.ckpt was written with other settings: ')
    assert message in said and '--restart-schedule' in said
    assert message in check_settings(settings(), now, EPOCHS_END, 'run/last.ckpt', restart_schedule=True)


@pytest.mark.parametrize(
    ('now', 'message'),
    [
        (lambda: settings(processes=2), 'processes=1 (now 2)'),
        (lambda: settings(precision='bf16-mixed'), 'precision=32-true (now bf16-mixed)'),
        (lambda: {**settings(), 'training_samples': 24}, 'training_samples=12 (now 24)'),
    ],
)
def test_other_processes_precision_and_number_of_samples_need_to_be_asked_for(now, message):
    assert message in refusal(now())
    assert check_settings(settings(), now(), EPOCHS_END, 'run/last.ckpt', True) == [message]


@pytest.mark.parametrize('restart_schedule', [False, True])
@pytest.mark.parametrize(
    ('now', 'message'),
    [
        (
            lambda: settings(SGD),
            'optim_wrapper.optimizer.type=AdamW (now SGD)',
        ),
        (lambda: settings({'model.pts_bbox_head.num_query': 90}), 'model.pts_bbox_head.num_query=150 (now 90)'),
        (
            lambda: settings({'train_dataloader.dataset.metainfo.classes': ['bus', 'car']}),
            'train_dataloader.dataset.metainfo.classes.0=car (now bus)',
        ),
        (lambda: settings(seed=3), 'seed=0 (now 3)'),
        (lambda: settings({'load_from': 'x.pth'}), 'load_from=None (now x.pth)'),
        (
            lambda: settings({'optim_wrapper.paramwise_cfg': {'_delete_': True, 'norm_decay_mult': 0.0}}),
            'optim_wrapper.paramwise_cfg.norm_decay_mult=None (now 0.0)',
        ),
        (
            lambda: settings({'custom_hooks': [{'type': 'EMAHook'}]}),
            'written without EMAHook in custom_hooks, the config is with it',
        ),
    ],
)
def test_another_model_optimizer_average_or_seed_is_another_run(now, message, restart_schedule):
    assert message in refusal(now(), restart_schedule=restart_schedule)


@pytest.mark.parametrize('restart_schedule', [False, True])
@pytest.mark.parametrize(
    ('now', 'message'),
    [
        (lambda: settings({'train_dataloader.batch_size': 2}), 'of 1 samples a step, not 2'),
        (lambda: settings(processes=3), 'of 1 samples a step, not 3'),
        (
            lambda: settings({'optim_wrapper.accumulative_counts': 2}),
            'optim_wrapper.accumulative_counts=1 (now 2)',
        ),
        (lambda: {**settings(), 'training_samples': 24}, 'training_samples=12 (now 24)'),
    ],
)
def test_the_place_in_mid_epoch_stays_that_of_the_same_batches(now, message, restart_schedule):
    said = refusal(now(), MID_EPOCH, restart_schedule)
    assert 'is of mid-epoch' in said and message in said and "from an epoch's end" in said


@pytest.mark.parametrize(
    'changes',
    [
        {'train_cfg.max_epochs': 7, 'param_scheduler.1.end': 3},  # the schedule has an end of its own
        {'train_cfg.val_interval': 1},
        {'train_dataloader.num_workers': 3},
        {'train_dataloader.dataset.data_root': '/elsewhere'},
        {'train_dataloader.dataset.ann_file': '/moved/to/nuscenes_infos_temporal_train.pkl'},
        {'optim_wrapper.optimizer.betas': [0.9, 0.99]},
        {'model.activation_checkpointing': ('encoder',)},
        {'default_hooks.checkpoint.interval': 5},
        {'custom_hooks': []},
    ],
)
def test_what_does_not_decide_on_steps_may_change(changes):
    assert check_settings(settings(), settings(changes), MID_EPOCH, 'run/last.ckpt', False) == []


def test_a_schedule_without_an_end_follows_max_epochs():
    endless = {'param_scheduler': [{'type': 'CosineAnnealingLR', 'eta_min': 0.0}]}
    with pytest.raises(ValueError, match=r'param_scheduler\.0\.end=3 \(now 7\)'):
        check_settings(
            settings(endless), settings({**endless, 'train_cfg.max_epochs': 7}), EPOCHS_END, 'last.ckpt', False
        )


def test_a_checkpoint_without_record_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r'does not record the settings of its run, .* --restart-schedule'):
        check_settings(None, settings(), EPOCHS_END, 'last.ckpt', False)
    assert check_settings(None, settings(), EPOCHS_END, 'last.ckpt', True) == []


@pytest.mark.parametrize(('place', 'reached'), [(Place(2, 0), 2), (Place(1, 3), 2)])
def test_a_run_does_not_end_before_its_checkpoint(place, reached):
    place.refuse_shorter(2, 'last.ckpt')
    with pytest.raises(ValueError, match=rf'has reached epoch {reached}, and train_cfg\.max_epochs=1'):
        place.refuse_shorter(1, 'last.ckpt')


def copied(run, engine: str, folder):
    """A work dir with a finished run's newest checkpoint."""
    name, _ = ENGINES[engine]
    folder.mkdir()
    shutil.copy(run / name, folder)
    return folder


def planned_learning_rates(options: list[str], lr: float, epochs: int) -> list[float]:
    """Of the steps of a run of ``epochs``, by MMEngine's schedules on an optimizer without a run."""
    changes = dict(option.split('=', 1) for option in options if option.startswith(('param_scheduler', 'train_cfg')))
    cfg = load_config(NANO, {key: int(value) for key, value in changes.items()})
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr)
    schedulers = [
        PARAM_SCHEDULERS.build(dict(scheduler), default_args=dict(optimizer=optimizer, epoch_length=12))
        for scheduler in cfg.param_scheduler
    ]
    rates = []
    for _ in range(12 * epochs):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return rates


@pytest.mark.parametrize('engine', ENGINES)
def test_a_restarted_schedule_has_the_learning_rates_of_a_run_planned_so(
    engine, lightning_run, mmengine_run, small_options, tmp_path
):
    work_dir = copied({'lightning': lightning_run, 'mmengine': mmengine_run}[engine], engine, tmp_path / 'run')
    longer = [
        *small_options,
        'train_cfg.max_epochs=2',
        'param_scheduler.1.end=2',
        'train_cfg.val_begin=3',
        'optim_wrapper.optimizer.lr=0.0005',
        'optim_wrapper.optimizer.weight_decay=0.02',
    ]
    resume = ('train', NANO, '--engine', engine, '--work-dir', work_dir, '--resume')
    refused = run_tool(*resume, '--cfg-options', *longer)
    assert refused.returncode == 1 and refused.last_line.startswith(f'error: {work_dir}')
    for difference in ('optimizer.lr=0.002 (now 0.0005)', 'param_scheduler.1.end=1 (now 2)'):
        assert difference in refused.last_line
    done = run_tool(*resume, '--restart-schedule', '--cfg-options', *longer)
    assert done.returncode == 0, done.output
    used = [row['lr'] for row in last_steps(engine, work_dir)]
    planned = planned_learning_rates([*longer, 'param_scheduler.1.end=2'], 0.0005, epochs=2)[12:]
    assert used == pytest.approx(planned, rel=1e-5)
    assert f'learning rate {planned[0]:.3g} in the first step from here' in done.output
    assert 'from here on optim_wrapper.optimizer.lr=0.002 (now 0.0005)' in done.output
    if engine == 'lightning':
        kept = read_checkpoint(str(work_dir / 'last.ckpt'))
        optimizer = kept['optimizer_states'][0]
        assert optimizer['param_groups'][0]['weight_decay'] == 0.02
        assert all(state['step'] == 24 for state in optimizer['state'].values())  # moments were kept


def last_steps(engine: str, work_dir) -> list[dict[str, float]]:
    """Logged steps of a resumed run."""
    if engine == 'lightning':
        next(work_dir.glob('csv_resumed_*')).rename(work_dir / 'csv')
    return ENGINES[engine][1](work_dir)


def test_another_batch_from_an_epochs_end_has_the_learning_rate_that_is_announced(
    lightning_run, small_options, tmp_path
):
    work_dir = copied(lightning_run, 'lightning', tmp_path / 'run')
    options = [*small_options, 'train_dataloader.batch_size=2', 'train_cfg.max_epochs=2', 'train_cfg.val_begin=3']
    resume = ('train', NANO, '--work-dir', work_dir, '--resume')
    refused = run_tool(*resume, '--cfg-options', *options)
    assert refused.returncode == 1 and 'train_dataloader.batch_size=1 (now 2)' in refused.last_line
    constant = ['param_scheduler.0.start_factor=1.0', 'param_scheduler.1.eta_min_ratio=1.0']
    done = run_tool(*resume, '--restart-schedule', '--cfg-options', *options, *constant)
    assert done.returncode == 0, done.output
    rows = last_steps('lightning', work_dir)
    assert [row['lr'] for row in rows] == pytest.approx([0.004] * 6)
    assert 'learning rate 0.004 in the first step from here' in done.output


def test_the_seed_is_the_checkpoints_unless_another_one_is_given(lightning_run, small_options, tmp_path):
    work_dir = tmp_path / 'run'
    options = ['--cfg-options', *small_options, 'train_cfg.val_begin=3']
    done = run_tool('train', NANO, '--work-dir', work_dir, '--seed', 7, *options)
    assert done.returncode == 0, done.output
    more = [*options, 'train_cfg.max_epochs=2']
    refused = run_tool('train', NANO, '--work-dir', work_dir, '--resume', '--seed', 0, *more)
    assert refused.returncode == 1 and 'seed=7 (now 0)' in refused.last_line
    done = run_tool('train', NANO, '--work-dir', work_dir, '--resume', *more)
    assert done.returncode == 0, done.output
    assert read_checkpoint(str(work_dir / 'last.ckpt'))['meta']['run_settings']['seed'] == 7
    refused = run_tool('train', NANO, '--work-dir', work_dir, '--resume', *options)
    assert 'has reached epoch 2, and train_cfg.max_epochs=1' in refused.last_line
    nothing_left = run_tool('train', NANO, '--work-dir', work_dir, '--resume', *more)
    assert nothing_left.returncode == 0 and 'all 2 epochs are done' in nothing_left.output


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--resume', '--overwrite'], '--resume continues a run and --overwrite replaces it'),
        (['--restart-schedule'], '--restart-schedule belongs to --resume'),
        (['--seed', '-1'], '--seed is from 0'),
        (['--engine', 'mmengine', '--resume', 'projects/synthetic_world/bevformer_nano.pth'], 'cannot be resumed'),
        (['--resume', 'projects/synthetic_world/bevformer_nano.pth'], 'cannot be resumed'),
        (['--resume', 'nowhere.ckpt'], 'checkpoint nowhere.ckpt does not exist'),
        (['--resume'], 'nothing to resume in'),
        (['--engine', 'mmengine', '--resume'], 'nothing to resume in'),
    ],
)
def test_ways_of_going_on_that_make_no_sense_are_refused(arguments, message, small_options, tmp_path):
    done = run_tool('train', NANO, '--work-dir', tmp_path / 'run', *arguments, '--cfg-options', *small_options)
    assert done.returncode == 1
    assert done.last_line.startswith('error:') and message in done.last_line
    assert not list(tmp_path.glob('run/*'))
