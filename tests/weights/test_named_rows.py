"""Weights follow the names of classes and cameras: exactly in testing, as far as names are known in fine-tuning."""

import re

import pytest
import torch
from mmdet3d.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate

from bevformer_plugin.configuration import load_config
from bevformer_plugin.weights import initialize, load_weights, read_checkpoint
from bevformer_plugin.weights.conversion import expected_state
from bevformer_plugin.weights.named_rows import CAMERA_ROWS, CLASS_ROWS

NANO, WEIGHTS = 'configs/bevformer/bevformer_nano.py', 'projects/synthetic_world/bevformer_nano.pth'
CLASSES = load_config(NANO).class_names
CAMERAS = load_config(NANO).cameras


def num_classes(number: int) -> dict[str, int]:
    """Settings of nano's model for another number of classes."""
    return {f'heads.{head}.num_classes': number for head in ('detection', 'perspective')}


@pytest.fixture(scope='module')
def released():
    """Weights of the released nano checkpoint."""
    return read_checkpoint(WEIGHTS)['state_dict']


def model_of(**changes: object) -> torch.nn.Module:
    """Nano's detector with options of its model changed, seeded."""
    torch.manual_seed(0)
    return MODELS.build(load_config(NANO, {f'model.{name}': value for name, value in changes.items()}).model)


@pytest.mark.parametrize('name', ['nano', 'tiny', 'small', 'base'])
@pytest.mark.parametrize(('changes', 'rows'), [(num_classes(7), CLASS_ROWS), ({'num_cameras': 5}, CAMERA_ROWS)])
def test_the_tables_name_every_tensor_that_counts_classes_or_cameras(name, changes, rows):
    path = f'configs/bevformer/bevformer_{name}.py'
    cfg = load_config(path)
    absent = {f'heads.{head}.num_classes' for head in {'detection', 'perspective'} - cfg.model.heads.keys()}
    before = expected_state(cfg)
    changes = {key: value for key, value in changes.items() if key not in absent}
    after = expected_state(load_config(path, {f'model.{key}': value for key, value in changes.items()}))
    assert before.keys() == after.keys()
    changed = {key for key in before if before[key].shape != after[key].shape}
    assert changed and changed == {key for key in before if rows.fullmatch(key)}
    assert all(
        len(after[key]) in changes.values() and after[key].shape[1:] == before[key].shape[1:] for key in changed
    )


def detections(cfg: Config, classes: list[str]) -> list[tuple[str, float, list[float]]]:
    """Detections of two frames by the released weights, named by ``classes``; best first."""
    cfg.test_dataloader.dataset.metainfo = {'classes': classes}
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    detector = MODELS.build(cfg.model).eval()
    load_weights(detector, WEIGHTS, dataset.metainfo['classes'])
    found = []
    for index in range(2):
        with torch.no_grad():
            boxes = detector.test_step(pseudo_collate([dataset[index]]))[0].pred_instances_3d
        names = [dataset.metainfo['classes'][label] for label in boxes.labels_3d]
        found += zip(names, boxes.scores_3d.tolist(), boxes.bboxes_3d.tensor.tolist(), strict=True)
    return sorted(found, key=lambda row: (-round(row[1], 9), row[0], row[2]))


def test_detections_keep_their_names_when_the_classes_are_in_another_order(synthetic_root, info_files, log):
    cfg = load_config(
        NANO,
        {
            'test_dataloader.dataset.data_root': str(synthetic_root),
            'test_dataloader.dataset.ann_file': str(info_files['mini_val']),
        },
    )
    expected, found = detections(cfg, CLASSES), detections(cfg, sorted(CLASSES))
    assert f'brought into the order of the dataset: {", ".join(sorted(CLASSES))}' in log.text
    assert len(found) == len(expected) > 100
    assert len({name for name, _, _ in expected}) > 2 and expected[0][1] > 0.2
    assert [name for name, _, _ in found] == [name for name, _, _ in expected]
    scores, boxes = (([row[column] for row in rows] for rows in (found, expected)) for column in (1, 2))
    torch.testing.assert_close(*map(torch.tensor, scores), atol=1e-6, rtol=0)
    torch.testing.assert_close(*map(torch.tensor, boxes), atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize(
    ('classes', 'message'),
    [
        (['car', 'pedestrian'], 'the dataset alone no other'),
        ([*CLASSES[:-1], 'animal'], 'the checkpoint alone has traffic_cone, the dataset alone animal'),
    ],
)
def test_other_classes_are_refused_in_testing(classes, message):
    detector = model_of(**num_classes(len(classes)))
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        load_weights(detector, WEIGHTS, classes)
    assert ', '.join(CLASSES) in str(caught.value) and f'set load_from={WEIGHTS}' in str(caught.value)


def test_weights_without_a_record_are_taken_as_they_are_and_said_so(released, tmp_path, log):
    torch.save(released, tmp_path / 'bare.pth')
    detector = model_of()
    load_weights(detector, str(tmp_path / 'bare.pth'), sorted(CLASSES))
    assert 'bare.pth does not record its classes, so their order cannot be checked' in log.text
    name = 'heads.detection.cls_branches.1.6.bias'
    assert torch.equal(detector.state_dict()[name], released[name])


def test_a_record_that_is_not_of_the_weights_is_refused(released, tmp_path):
    torch.save({'state_dict': released, 'meta': {'dataset_meta': {'classes': CLASSES[:9]}}}, tmp_path / 'nine.pth')
    for load in (load_weights, initialize):
        with pytest.raises(ValueError, match=r'records 9 classes .* in it has 10 rows'):
            load(model_of(), str(tmp_path / 'nine.pth'), CLASSES)


def test_fine_tuning_for_other_classes_maps_those_that_are_known(released, log):
    classes = ['pedestrian', 'animal', 'car']
    detector = model_of(**num_classes(3))
    start = {name: value.clone() for name, value in detector.state_dict().items()}
    initialize(detector, WEIGHTS, classes, CAMERAS)
    rows = 0
    for name, value in detector.state_dict().items():
        if CLASS_ROWS.fullmatch(name):
            rows += 1
            assert torch.equal(value[0], released[name][CLASSES.index('pedestrian')]), name
            assert torch.equal(value[1], start[name][1]), name
            assert torch.equal(value[2], released[name][CLASSES.index('car')]), name
        elif not name.endswith('.code_weights'):
            assert torch.equal(value, released[name]), name
    assert rows == 9
    assert '230 tensors of 230 used, 9 of them row by row' in log.text
    assert 'classes from the file: pedestrian, car; classes that it does not know: animal' in log.text


def test_fine_tuning_with_other_cameras_maps_their_embeddings(released, log):
    cameras = ['CAM_BACK', 'CAM_ROOF', 'CAM_FRONT']
    detector = model_of(num_cameras=3)
    name = 'bev_encoder.cams_embeds'
    start = detector.state_dict()[name].clone()
    initialize(detector, WEIGHTS, CLASSES, cameras)
    expected = torch.stack([released[name][3], start[1], released[name][0]])
    assert torch.equal(detector.state_dict()[name], expected)
    assert 'cameras from the file: CAM_BACK, CAM_FRONT; cameras that it does not know: CAM_ROOF' in log.text


def test_fine_tuning_with_another_grid_and_neck_uses_what_fits(released, log):
    detector = model_of(bev_grid=(32, 32), **{'img_neck.num_outs': 3})
    start = {name: value.clone() for name, value in detector.state_dict().items()}
    initialize(detector, WEIGHTS, CLASSES, CAMERAS)
    left = {name for name, value in start.items() if name not in released or released[name].shape != value.shape}
    assert {name.split('.')[-1] for name in left} >= {'level_embeds', 'weight', 'bias'}
    assert 'bev_encoder.bev_embedding.weight' in left and 'bev_encoder.positional_encoding.row_embed.weight' in left
    for name, value in detector.state_dict().items():
        if not name.endswith('.code_weights'):
            assert torch.equal(value, start[name] if name in left else released[name]), name
    assert f'{len(left)} left at their initialisation' in log.text


def test_other_names_of_the_same_number_are_not_taken_for_the_same(released):
    classes = [f'kind_{number}' for number in range(10)]
    detector = model_of()
    start = {name: value.clone() for name, value in detector.state_dict().items()}
    initialize(detector, WEIGHTS, classes, CAMERAS)
    for name, value in detector.state_dict().items():
        if CLASS_ROWS.fullmatch(name):
            assert torch.equal(value, start[name]), name
    assert torch.equal(detector.img_backbone.conv1.weight, released['img_backbone.conv1.weight'])
