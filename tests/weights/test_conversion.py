"""tools/convert_checkpoint.py on whole files, there and back; files it must refuse."""

import re

import pytest
import torch

from bevformer_plugin.configuration import load_config
from bevformer_plugin.geometry import boxes_from_old_convention, boxes_to_old_convention
from bevformer_plugin.models import NMSFreeCoder
from bevformer_plugin.weights import TrainingRecord, convert_checkpoint, load_weights, read_checkpoint
from bevformer_plugin.weights.layout import PLACES, swap_box_convention
from tests.helpers.processes import Finished, run_tool
from tests.helpers.reference_files import CLASSES, manifest, published_weights

TINY = 'configs/bevformer/bevformer_tiny.py'


def convert(*arguments: object) -> Finished:
    return run_tool('convert_checkpoint', *arguments, '--config', TINY)


@pytest.fixture(scope='module')
def published():
    return published_weights(manifest('bevformer_tiny'))


@pytest.fixture(scope='module')
def converted(published, tmp_path_factory):
    """The published weights as mmcv wraps them, the converted file, and what the tool printed."""
    folder = tmp_path_factory.mktemp('checkpoints')
    half = {key: value.half() if value.is_floating_point() else value for key, value in published.items()}
    torch.save({'state_dict': half, 'meta': {'epoch': 24, 'CLASSES': CLASSES}, 'optimizer': {}}, folder / 'fp16.pth')
    done = convert(folder / 'fp16.pth', folder / 'ours.pth')
    return folder, done


def test_there_and_back(published, converted):
    folder, done = converted
    assert done.returncode == 0, done.output
    assert '643 tensors converted' in done.output
    state = torch.load(folder / 'ours.pth', weights_only=True)['state_dict']
    assert {value.dtype for value in state.values()} == {torch.float32, torch.int64}
    back = convert(folder / 'ours.pth', folder / 'back.pth', '--to-published')
    assert back.returncode == 0, back.output
    for name in ('ours.pth', 'back.pth'):
        record = TrainingRecord.of_checkpoint(read_checkpoint(str(folder / name)))
        assert record.classes == CLASSES and record.can_bus == 'official_v1', name
        assert record.cameras[:2] == ('CAM_FRONT', 'CAM_FRONT_RIGHT') and len(record.cameras) == 6, name
        assert record.model['ego_motion'] == {'preset': 'official_v1'}, name
    state = torch.load(folder / 'back.pth', weights_only=True)['state_dict']
    assert state.keys() == published.keys()
    for key, value in published.items():
        expected = value.half().float() if value.is_floating_point() else value
        assert torch.equal(state[key], expected), key


def test_weights_of_version_0_1_become_todays(published, converted, tmp_path):
    """They have the published places, but today's parts and boxes; the record of their training stays."""
    folder, _ = converted
    ours = torch.load(folder / 'ours.pth', weights_only=True)['state_dict']
    places = [(today, earlier) for earlier, today in PLACES if earlier != 'pts_bbox_head.code_weights']
    earlier = {}
    for name, value in ours.items():
        today, place = next(((a, b) for a, b in places if name.startswith(a)), ('', ''))
        earlier[place + name.removeprefix(today)] = value
    assert 'pts_bbox_head.criterion.code_weights' in earlier and len(earlier) == len(ours)
    record = {'classes': [f'kind_{number}' for number in range(10)]}
    torch.save({'state_dict': earlier, 'meta': {'dataset_meta': record}}, tmp_path / 'earlier.pth')
    with pytest.raises(ValueError, match=r'layout of version 0\.1: convert it with tools/convert'):
        load_weights(torch.nn.Linear(1, 1), str(tmp_path / 'earlier.pth'))
    done = convert(tmp_path / 'earlier.pth', tmp_path / 'today.pth')
    assert done.returncode == 0, done.output
    content = torch.load(tmp_path / 'today.pth', weights_only=True)
    assert content['state_dict'].keys() == ours.keys() and content['meta']['dataset_meta'] == record
    for name, value in ours.items():
        assert torch.equal(content['state_dict'][name], value), name


@pytest.fixture(scope='module')
def spoilt(published, converted):
    """The folder of the converted file, with files beside it that cannot be converted."""
    folder, _ = converted
    bev = 'pts_bbox_head.bev_embedding.weight'
    torch.save({key: value for key, value in published.items() if key != bev}, folder / 'part.pth')
    torch.save({**published, 'extra.weight': torch.zeros(1)}, folder / 'more.pth')
    torch.save({**published, bev: torch.zeros(9, 256)}, folder / 'other.pth')
    torch.save({**published, bev: torch.full_like(published[bev], torch.nan)}, folder / 'nan.pth')
    torch.save({'state_dict': published, 'meta': {'CLASSES': ('car',)}}, folder / 'named.pth')
    (folder / 'text.pth').write_text('not a checkpoint')
    return folder


@pytest.mark.parametrize(
    ('source', 'published_layout', 'message'),
    [
        ('ours.pth', False, 'already'),
        ('fp16.pth', True, 'already'),
        ('part.pth', False, '1 missing (first: bev_encoder.bev_embedding.weight)'),
        ('more.pth', False, '1 unexpected (first: extra.weight)'),
        ('other.pth', False, 'of another shape (first: bev_encoder.bev_embedding.weight ((9, 256) in the file'),
        ('none.pth', False, 'does not exist'),
        ('text.pth', False, 'is damaged or no checkpoint'),
        ('nan.pth', False, 'NaN or infinite in 1 of 643 tensors (first: pts_bbox_head.bev_embedding.weight)'),
        ('named.pth', False, 'records 1 classes (car), but heads.detection.cls_branches.0.6.weight in it has 10 rows'),
    ],
)
def test_refused_files(spoilt, source, published_layout, message):
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)):
        convert_checkpoint(str(spoilt / source), str(spoilt / 'refused.pth'), load_config(TINY), published_layout)
    assert not (spoilt / 'refused.pth').exists()


def test_own_classes_and_a_config_without_the_preset_are_recorded_as_trained(published, tmp_path):
    names = tuple(f'kind_{number}' for number in range(10))
    torch.save({'state_dict': published, 'meta': {'CLASSES': names}}, tmp_path / 'own.pth')
    cfg = load_config(TINY, {'model.ego_motion': None})
    convert_checkpoint(str(tmp_path / 'own.pth'), str(tmp_path / 'ours.pth'), cfg)
    record = TrainingRecord.of_checkpoint(read_checkpoint(str(tmp_path / 'ours.pth')))
    assert record.classes == names and record.model['ego_motion'] == {'preset': 'official_v1'}
    with pytest.raises(FileNotFoundError, match=r'no folder .*missing for ours\.pth: make it first'):
        convert_checkpoint(str(tmp_path / 'own.pth'), str(tmp_path / 'missing' / 'ours.pth'), cfg)


def test_an_existing_target_is_kept(converted):
    folder, _ = converted
    before = (folder / 'ours.pth').read_bytes()
    done = convert(folder / 'fp16.pth', folder / 'ours.pth')
    assert done.returncode == 1 and 'exists' in done.output
    assert (folder / 'ours.pth').read_bytes() == before


def test_a_converted_layer_regresses_the_same_boxes():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(30, 16, generator=generator)
    weight, bias = torch.randn(10, 16, generator=generator) * 0.3, torch.randn(10, generator=generator)
    scores = torch.randn(30, 10, generator=generator)
    old = features @ weight.T + bias
    new = features @ swap_box_convention(weight).T + swap_box_convention(bias)
    boxes, _, _ = NMSFreeCoder([-61.2, -61.2, -10.0, 61.2, 61.2, 10.0]).decode(scores, new)
    # Decode the old rows by hand: (cx, cy, log w, log l, cz, log h, sin, cos, vx, vy).
    order = scores.sigmoid().flatten().argsort(descending=True)[:300] // 10
    rows = old[order]
    by_hand = torch.stack(
        [
            rows[:, 0],
            rows[:, 1],
            rows[:, 4],
            rows[:, 2].exp(),
            rows[:, 3].exp(),
            rows[:, 5].exp(),
            torch.atan2(rows[:, 6], rows[:, 7]),
            rows[:, 8],
            rows[:, 9],
        ],
        dim=-1,
    )
    expected = boxes_from_old_convention(by_hand)
    turn = boxes[:, 6] - expected[:, 6]
    torch.testing.assert_close(torch.atan2(turn.sin(), turn.cos()), torch.zeros(len(turn)), atol=1e-5, rtol=0)
    kept = [0, 1, 2, 3, 4, 5, 7, 8]
    torch.testing.assert_close(boxes[:, kept], expected[:, kept])
    assert (boxes_to_old_convention(boxes)[:, 3] - by_hand[:, 3]).abs().max() < 1e-5
