"""Weights that a backbone starts from: where they cannot be had, training says so before it reads any data."""

import time

import pytest
import torch
from mmdet3d.registry import MODELS

from bevformer_plugin.configuration import load_config
from bevformer_plugin.training.pretrained import check_pretrained, fetch_pretrained
from tests.helpers.processes import NANO, run_tool
from tests.helpers.repository import REPO

TINY = 'configs/bevformer/bevformer_tiny.py'
KEY = 'model.img_backbone.init_cfg'
NAME = 'no_such_weights_of_bevformer_plugin.pth'
NOWHERE = f'http://127.0.0.1:9/{NAME}'  # no server listens there


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Where torch keeps downloads."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    (tmp_path / 'hub' / 'checkpoints').mkdir(parents=True)
    return tmp_path / 'hub' / 'checkpoints'


@pytest.mark.parametrize('engine', ['lightning', 'mmengine'])
def test_a_download_that_fails_ends_training_at_the_door(tmp_path, engine):
    started = time.perf_counter()
    done = run_tool('train', TINY, '--engine', engine, '--work-dir', tmp_path / 'run', '--cfg-options',
                    f'{KEY}.checkpoint={NOWHERE}', 'train_dataloader.dataset.data_root=/nowhere')  # fmt: skip
    assert done.returncode == 1 and 'Traceback' not in done.output
    assert done.last_line.startswith(f'error: {KEY}.checkpoint={NOWHERE} cannot be had here: <urlopen error')
    for remedy in (f'/hub/checkpoints/{NAME}; or', f'{KEY}.checkpoint=FILE', f'{KEY}=None load_from=FILE'):
        assert remedy in done.last_line
    assert not (tmp_path / 'run').exists() and time.perf_counter() - started < 60


def test_a_file_in_the_cache_or_on_the_machine_is_taken(hub):
    torch.save({'conv1.weight': torch.zeros(1)}, hub / NAME)
    for checkpoint in (NOWHERE, str(hub / NAME)):
        fetch_pretrained(load_config(str(REPO / TINY), {f'{KEY}.checkpoint': checkpoint}))


@pytest.mark.parametrize('kind', ['missing', 'damaged'])
def test_a_local_file_that_cannot_be_read_is_named(tmp_path, kind):
    file = tmp_path / 'resnet50.pth'
    if kind == 'damaged':
        file.write_bytes(b'PK\x03\x04 and no more')
    cfg = load_config(str(REPO / TINY), {f'{KEY}.checkpoint': str(file)})
    with pytest.raises(ValueError, match=f'{KEY}.checkpoint={file} cannot be had here') as caught:
        fetch_pretrained(cfg)
    assert 'put at' not in str(caught.value)


def test_a_file_that_does_not_fit_its_part_is_refused(tmp_path):
    """MMEngine would start from random weights, and say so in its log alone."""
    options = {
        KEY: dict(type='Pretrained', checkpoint=str(tmp_path / 'start.pth')),
        'model.img_backbone.frozen_stages': 1,
    }
    detector = MODELS.build(load_config(str(REPO / NANO), options).model)
    whole = detector.img_backbone.state_dict()
    cases = {
        'needs conv1.weight, bn1.weight': {f'backbone.{name}': value for name, value in whole.items()},
        'nothing of .* fits it: the file has conv1.weight': {'conv1.weight': torch.zeros(1)},
        r'lacks 1 parameters that are frozen \(first: conv1.weight\)': {**whole, 'conv1.weight': torch.zeros(1)},
    }
    for message, state in cases.items():
        torch.save({'state_dict': state}, tmp_path / 'start.pth')
        with pytest.raises(ValueError, match=message):
            check_pretrained(detector)
    torch.save(whole, tmp_path / 'start.pth')
    check_pretrained(detector)
    torch.save({f'backbone.{name}': value for name, value in whole.items()}, tmp_path / 'start.pth')
    detector.img_backbone.init_cfg['prefix'] = 'backbone'
    check_pretrained(detector)


def test_a_model_from_scratch_needs_nothing():
    fetch_pretrained(load_config(str(REPO / NANO)))
