"""The published schedule, cosine by epoch after a linear warm-up, under both engines and over an interruption."""

import math

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import ConstantLR, CosineAnnealingLR, LinearLR, MultiStepLR

from bevformer_plugin.training.run_settings import batches_per_epoch
from bevformer_plugin.training.schedule import beyond_training
from tests.helpers.processes import NANO, run_tool
from tests.helpers.repository import REPO
from tests.training.plants import Sigterm
from tests.training.training_runs import lightning_steps, mmengine_steps, rows

STEPS, EPOCHS, WARM_UP, RATE = 12, 3, 8, 0.002


def test_what_lies_beyond_the_training_is_said():
    """Six epochs of ten batches."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedules = [
        LinearLR(optimizer, start_factor=0.1, by_epoch=False, end=60),
        LinearLR(optimizer, start_factor=0.1, by_epoch=False, end=61),
        CosineAnnealingLR(optimizer, T_max=12, end=12),
        MultiStepLR(optimizer, milestones=[3, 6, 9], end=6),
        MultiStepLR(optimizer, milestones=[3, 5], end=6),
        ConstantLR(optimizer, begin=6, end=9),
    ]
    assert beyond_training(schedules, epochs=6, batches_per_epoch=10) == [
        'param_scheduler.1 (LinearLR) goes to iteration 61, the training ends at 60, before it is done',
        'param_scheduler.2 (CosineAnnealingLR) goes to epoch 12, the training ends at 6, before it is done',
        'param_scheduler.3 (MultiStepLR) steps at epoch 6, 9, the training ends at 6: this does not happen',
        'param_scheduler.5 (ConstantLR) begins at epoch 6, the training ends at 6: it has no effect',
    ]


@pytest.mark.parametrize(
    ('more', 'batches'),
    [({}, 3), ({'drop_last': True}, 2), ({'num_batch_per_epoch': 1}, 1), ({'drop_last': True, 'batch_size': 5}, 1)],
)
def test_batches_of_an_epoch(more, batches):
    settings = {'batch_size': 2, **more}
    recorded = {f'train_dataloader.{name}': value for name, value in settings.items()}
    assert batches_per_epoch({**recorded, 'training_samples': 10, 'processes': 2}) == batches


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        ({'drop_last': True}, 'drop_last=True leaves nothing to train on'),
        ({'num_batch_per_epoch': 2}, 'takes 12 samples'),
    ],
)
def test_epochs_that_cannot_be_are_refused(more, message):
    recorded = {f'train_dataloader.{name}': value for name, value in {'batch_size': 6, **more}.items()}
    with pytest.raises(ValueError, match=message):
        batches_per_epoch({**recorded, 'training_samples': 10, 'processes': 2})


def published(step: int) -> float:
    """Rate of a step in a training of three epochs, warmed up for eight steps."""
    cosine = (1 + math.cos(math.pi * (step // STEPS) / EPOCHS)) / 2
    return RATE * (1e-3 + (1 - 1e-3) * cosine) * min(1, 1 / 3 + 2 / 3 * step / WARM_UP)


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    """Nano on the published schedule, whose warm-up is made to fit into a short epoch."""
    schedule = Config.fromfile(REPO / 'configs' / '_base_' / 'schedule_24e.py').param_scheduler
    schedule[0].end = WARM_UP + 1
    path = tmp_path_factory.mktemp('config') / 'published_schedule.py'
    path.write_text(f"_base_ = '{REPO / NANO}'\nparam_scheduler = {[dict(entry) for entry in schedule]}\n")
    return path


@pytest.fixture(scope='module')
def options(small_options):
    """``train_cfg`` alone says when the schedule ends."""
    kept = [option for option in small_options if not option.startswith('param_scheduler')]
    return ['--cfg-options', *kept, f'train_cfg.max_epochs={EPOCHS}', f'train_cfg.val_begin={EPOCHS + 1}']


@pytest.mark.parametrize(('engine', 'steps'), [('lightning', lightning_steps), ('mmengine', mmengine_steps)])
def test_every_step_has_the_published_rate(config, options, tmp_path, engine, steps):
    done = run_tool('train', config, '--engine', engine, '--work-dir', tmp_path, *options)
    assert done.returncode == 0, done.output
    rates = [row['lr'] for row in steps(tmp_path)]
    assert rates == pytest.approx([published(step) for step in range(EPOCHS * STEPS)], rel=1e-5)


def test_an_interrupted_epoch_goes_on_at_its_rate(config, options, tmp_path):
    for how, expected in ((dict(plant=Sigterm(epoch=1, batch=3)), 143), ({}, 0)):
        resume = [] if expected else ['--resume']
        done = run_tool('train', config, '--work-dir', tmp_path, *resume, *options, **how)
        assert done.returncode == expected, done.output
    rates = {step: float(row['train/lr']) for step, row in rows(tmp_path).items() if 'train/lr' in row}
    assert rates == pytest.approx({step: published(step) for step in range(EPOCHS * STEPS)}, rel=1e-5)
