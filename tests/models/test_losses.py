"""Matching and the training criterion."""

import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.registry import DefaultScope

from bevformer_plugin.geometry import normalize_boxes
from tests.models.small_detector import detector_config


@pytest.fixture
def criterion():
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        return MODELS.build(detector_config()['heads']['detection']['criterion'])


@pytest.fixture
def boxes():
    return torch.tensor([[10.0, 5, 0, 4, 2, 1.5, 0.3, 3, 1], [-20.0, 8, -1, 0.8, 0.7, 1.8, -2, 0, 0]])


def test_exact_predictions_have_no_box_loss(criterion, boxes):
    labels = torch.tensor([2, 0])
    cls_scores = torch.full((2, 1, 5, 3), -20.0)
    bbox_preds = torch.zeros(2, 1, 5, 10)
    for query, box in ((3, 0), (1, 1)):
        cls_scores[:, :, query, labels[box]] = 20.0
        bbox_preds[:, :, query] = normalize_boxes(boxes)[box]
    losses = criterion(cls_scores, bbox_preds, [labels], [boxes])
    assert set(losses) == {'loss_cls', 'loss_bbox', 'd0.loss_cls', 'd0.loss_bbox'}
    assert all(value.item() == pytest.approx(0, abs=1e-6) for value in losses.values())


def test_loss_values_by_hand(criterion, boxes):
    bbox_preds = normalize_boxes(boxes[:1]).view(1, 1, 1, 10).clone()
    bbox_preds[..., 0] += 2.0
    bbox_preds[..., 8] += 5.0
    losses = criterion(torch.zeros(1, 1, 1, 3), bbox_preds, [torch.tensor([1])], [boxes[:1]])
    assert losses['loss_bbox'].item() == pytest.approx(0.25 * (2.0 + 0.2 * 5.0), rel=1e-5)
    # -log(.5) * .5 ** 2, weighted .25 for the object's class and .75 for the two others.
    assert losses['loss_cls'].item() == pytest.approx(2 * 0.6931472 * 0.25 * (0.25 + 2 * 0.75), rel=1e-5)


def test_unknown_velocity_is_not_trained_on(criterion, boxes):
    bbox_preds = torch.randn(1, 1, 5, 10)
    unknown = boxes.clone()
    unknown[:, 7:] = torch.nan
    bbox_preds.requires_grad_()
    losses = criterion(torch.zeros(1, 1, 5, 3), bbox_preds, [torch.tensor([1, 1])], [unknown])
    losses['loss_bbox'].backward()
    assert bbox_preds.grad[..., 8:].abs().max() == 0
    assert bbox_preds.grad[..., :8].abs().max() > 0


def test_more_objects_than_queries(criterion, boxes):
    losses = criterion(torch.zeros(1, 1, 1, 3), torch.zeros(1, 1, 1, 10), [torch.tensor([1, 1])], [boxes])
    assert losses['loss_bbox'].isfinite()


def test_not_finite_predictions_are_named(criterion, boxes):
    bbox_preds = torch.zeros(1, 1, 2, 10)
    bbox_preds[0, 0, 1, 3] = torch.nan
    with pytest.raises(FloatingPointError, match='not finite: all_bbox_preds'):
        criterion(torch.zeros(1, 1, 2, 3), bbox_preds, [torch.tensor([1, 1])], [boxes])


def test_true_boxes_that_cannot_be_are_refused(criterion, boxes):
    outputs = torch.zeros(1, 1, 2, 3), torch.zeros(1, 1, 2, 10)
    flat = boxes.clone()
    flat[1, 4] = 0
    with pytest.raises(ValueError, match=r'sample 0 .* size that is not positive'):
        criterion(*outputs, [torch.tensor([1, 1])], [flat])
    with pytest.raises(ValueError, match=r'labels \[1, 3\]; the head knows 3 classes'):
        criterion(*outputs, [torch.tensor([1, 3])], [boxes])
    with pytest.raises(ValueError, match='2 true boxes but 1 labels'):
        criterion(*outputs, [torch.tensor([1])], [boxes])


@pytest.mark.parametrize(
    ('setting', 'value', 'message'),
    [
        (
            'loss_cls',
            dict(type='mmdet.CrossEntropyLoss'),
            'no loss of sigmoids: queries have no class for background',
        ),
        ('code_weights', [1.0] * 8, r'code_weights takes ten numbers, got \[1\.0, '),
    ],
)
def test_settings_that_cannot_be_trained_with_are_refused(setting, value, message):
    settings = {**detector_config()['heads']['detection']['criterion'], setting: value}
    with DefaultScope.overwrite_default_scope('mmdet3d'), pytest.raises(ValueError, match=message):
        MODELS.build(settings)
