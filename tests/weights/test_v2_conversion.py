"""Checkpoints of the published BEVFormerV2: with their head for training, and without it."""

import pytest
import torch

from bevformer_plugin.configuration import load_config
from bevformer_plugin.errors import InputError
from bevformer_plugin.weights import TrainingRecord, convert_checkpoint, load_weights, read_checkpoint
from bevformer_plugin.weights.conversion import expected_state
from bevformer_plugin.weights.layout import to_published
from tests.models.v2_world import build, shrunk_config

HEAD = 'fcos3d_bbox_head.'
CLASSES = [
    'barrier',
    'bicycle',
    'bus',
    'car',
    'construction_vehicle',
    'motorcycle',
    'pedestrian',
    'traffic_cone',
    'trailer',
    'truck',
]


@pytest.fixture(scope='module')
def cfg():
    return shrunk_config('t2', [-1, 0])


@pytest.fixture(scope='module')
def published(cfg):
    """What the published code would have saved of a shrunk model."""
    return to_published(build(cfg).state_dict())


@pytest.fixture
def source(published, tmp_path):
    torch.save({'state_dict': published, 'meta': {}}, tmp_path / 'published.pth')
    return tmp_path / 'published.pth'


def test_a_checkpoint_is_converted_with_its_head_for_training(cfg, published, source, tmp_path, log):
    assert sum(name.startswith(HEAD) for name in published) > 50
    count = convert_checkpoint(str(source), str(tmp_path / 'ours.pth'), cfg)
    content = read_checkpoint(str(tmp_path / 'ours.pth'))
    assert count == len(published) == len(content['state_dict'])
    record = TrainingRecord.of_checkpoint(content)
    assert list(record.classes) == CLASSES and record.can_bus is None and 'ego_motion' not in record.model
    load_weights(build(cfg, seed=1), str(tmp_path / 'ours.pth'), CLASSES)
    assert 'needed in training alone' not in log.text
    convert_checkpoint(str(tmp_path / 'ours.pth'), str(tmp_path / 'back.pth'), cfg, published=True)
    back = read_checkpoint(str(tmp_path / 'back.pth'))['state_dict']
    assert back.keys() == published.keys()
    assert all(torch.equal(back[name], value) for name, value in published.items())


def test_the_head_for_training_is_dropped_with_a_report(cfg, published, source, tmp_path, log):
    changed = cfg.copy()
    changed.model = {**cfg.model, 'heads': {**cfg.model.heads, 'perspective': None}}
    count = convert_checkpoint(str(source), str(tmp_path / 'ours.pth'), changed)
    dropped = sum(name.startswith(HEAD) for name in published)
    assert count == len(published) - dropped == len(expected_state(changed))
    assert f'{dropped} tensors of the perspective head (fcos3d_bbox_head.*) left out' in log.text
    load_weights(build(changed), str(tmp_path / 'ours.pth'), CLASSES)
    # A model that has the head takes the file as well: no prediction needs the head.
    model = build(cfg)
    load_weights(model, str(tmp_path / 'ours.pth'), CLASSES)
    assert 'has no weights of heads.perspective, which predicts nothing' in log.text


def test_a_checkpoint_without_the_head_is_converted(cfg, published, tmp_path):
    bare = {name: value for name, value in published.items() if not name.startswith(HEAD)}
    torch.save(bare, tmp_path / 'bare.pth')
    assert convert_checkpoint(str(tmp_path / 'bare.pth'), str(tmp_path / 'ours.pth'), cfg) == len(bare)


def test_half_of_the_head_is_refused(cfg, published, tmp_path):
    torch.save({name: value for name, value in published.items() if '.box3d_' not in name}, tmp_path / 'half.pth')
    with pytest.raises(InputError, match=r'is not of the model of .*missing \(first: heads\.perspective\.box3d'):
        convert_checkpoint(str(tmp_path / 'half.pth'), str(tmp_path / 'ours.pth'), cfg)


def test_classes_in_another_order_reach_the_head_for_training_too(cfg, source, tmp_path):
    convert_checkpoint(str(source), str(tmp_path / 'ours.pth'), cfg)
    order = [*reversed(CLASSES)]
    straight, turned = build(cfg, seed=1), build(cfg, seed=2)
    load_weights(straight, str(tmp_path / 'ours.pth'), CLASSES)
    load_weights(turned, str(tmp_path / 'ours.pth'), order)
    ours, theirs = straight.heads['perspective'].box3d, turned.heads['perspective'].box3d
    for name in ('box3d_quat', 'box3d_ctr', 'box3d_depth', 'box3d_size', 'box3d_conf'):
        rows, reversed_rows = (getattr(head, name)[0].weight.unflatten(0, (-1, 10)) for head in (ours, theirs))
        assert torch.equal(rows.flip(1), reversed_rows) and not torch.equal(rows, reversed_rows)


def test_the_published_classes_are_alphabetical():
    for name in ('t1_base', 't8'):
        cfg = load_config(f'bevformer_v2/{name}_24e')
        assert list(cfg.test_dataloader.dataset.metainfo.classes) == CLASSES
