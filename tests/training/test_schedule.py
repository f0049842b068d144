"""The published schedule, cosine by epoch after a linear warm-up, under both engines and over an interruption."""

import math

import pytest
from mmengine.config import Config

from tests.helpers.processes import NANO, run_tool
from tests.helpers.repository import REPO
from tests.training.plants import Sigterm
from tests.training.training_runs import lightning_steps, mmengine_steps, rows

STEPS, EPOCHS, WARM_UP, RATE = 12, 3, 8, 0.002


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
