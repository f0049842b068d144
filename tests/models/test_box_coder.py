"""Decoded boxes are kept in a range that follows the model's."""

import pytest
import torch

from bevformer_plugin.geometry import BEVGrid
from bevformer_plugin.models.heads.box_coder import post_center_range


@pytest.mark.parametrize(
    ('grid_range', 'expected'),
    [
        ((-51.2, -51.2, -5.0, 51.2, 51.2, 3.0), (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0)),
        ((-102.4, -102.4, -3.0, 102.4, 102.4, 1.0), (-112.4, -112.4, -10.0, 112.4, 112.4, 10.0)),
        ((-25.6, -20.0, -12.0, 25.6, 40.0, 15.0), (-35.6, -30.0, -12.0, 35.6, 50.0, 15.0)),
    ],
)
def test_it_is_the_published_one_for_the_published_range(grid_range, expected):
    assert post_center_range(BEVGrid(10, 10, grid_range)) == pytest.approx(expected)


@pytest.mark.parametrize('reach', [25.6, 102.4])
def test_boxes_of_the_whole_range_are_kept(build_detector, reach):
    model = build_detector(point_cloud_range=(-reach, -reach, -3.0, reach, reach, 1.0))
    boxes, logits = torch.zeros(3, 10), torch.full((3, 3), -9.0)
    boxes[:, 0] = torch.tensor([0.99 * reach, -0.99 * reach, reach + 11])
    boxes[:, 7], logits[:, 0] = 1.0, 5.0
    kept, scores, _ = model.heads['detection'].box_coder.decode(logits, boxes)
    found = sorted(kept[scores > 0.5, 0].tolist())
    assert found == pytest.approx([-0.99 * reach, 0.99 * reach])


@pytest.mark.parametrize(
    'configured',
    [(-61.2, -61.2, -10.0, 61.2, 61.2), (-61.2, -30.0, -10.0, 61.2, 61.2, 10.0), (-61, -61, -10, 61, 61, 2)],
)
def test_a_range_that_drops_detections_is_refused(build_detector, configured):
    box_coder = dict(type='NMSFreeCoder', post_center_range=configured)
    with pytest.raises(ValueError, match=r'post_center_range=.* does not hold all of the point_cloud_range'):
        build_detector(head=dict(box_coder=box_coder))


def test_a_wider_range_is_taken(build_detector):
    wide = (-80.0, -80.0, -20.0, 80.0, 80.0, 20.0)
    model = build_detector(head=dict(box_coder=dict(type='NMSFreeCoder', post_center_range=wide)))
    assert model.heads['detection'].box_coder.post_center_range == wide
