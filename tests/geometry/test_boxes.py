"""Box parametrisations and conventions, forth and back."""

import math

import pytest
import torch
from mmdet3d.structures import LiDARInstance3DBoxes

from bevformer_plugin.geometry import (
    boxes_from_old_convention,
    boxes_to_old_convention,
    denormalize_boxes,
    normalize_boxes,
)


@pytest.fixture
def boxes():
    """(40, 9) boxes with yaw in (-pi, pi)."""
    generator = torch.Generator().manual_seed(0)
    boxes = torch.randn(40, 9, generator=generator) * 10
    boxes[:, 3:6] = torch.rand(40, 3, generator=generator) * 9 + 0.3
    boxes[:, 6] = torch.linspace(-3.14, 3.14, 40)
    return boxes


def test_network_boxes_by_hand():
    box = torch.tensor([[1.0, 2.0, -0.5, 4.0, 2.0, 1.5, math.pi / 6, 3.0, -4.0]])
    expected = [1.0, 2.0, math.log(4), math.log(2), -0.5, math.log(1.5), 0.5, math.sqrt(0.75), 3.0, -4.0]
    assert normalize_boxes(box)[0].tolist() == pytest.approx(expected)


def test_network_boxes_round_trip(boxes):
    torch.testing.assert_close(denormalize_boxes(normalize_boxes(boxes)), boxes, atol=1e-5, rtol=1e-5)


def test_yaw_of_a_network_box_needs_no_unit_vector(boxes):
    scaled = normalize_boxes(boxes)
    scaled[:, 6:8] *= 3
    torch.testing.assert_close(denormalize_boxes(scaled), boxes, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('columns', [7, 9])
def test_old_convention_round_trip(boxes, columns):
    boxes = boxes[:, :columns]
    torch.testing.assert_close(boxes_from_old_convention(boxes_to_old_convention(boxes)), boxes, atol=1e-5, rtol=0)
    torch.testing.assert_close(boxes_to_old_convention(boxes_from_old_convention(boxes)), boxes, atol=1e-5, rtol=0)


def test_both_conventions_describe_the_same_corners(boxes):
    """Before 1.0 a box's width lay along x and its yaw turned clockwise, seen from above."""
    old = boxes_to_old_convention(boxes)
    ours = LiDARInstance3DBoxes(boxes, box_dim=9).corners[:, :, :2]  # nx8x2
    x, y, _, width, length, _, yaw = old[:, :7].unbind(-1)
    for sign_x, sign_y in [(-1, -1), (-1, 1), (1, -1), (1, 1)]:
        local_x, local_y = sign_x * width / 2, sign_y * length / 2
        corner = torch.stack(
            [x + local_x * yaw.cos() + local_y * yaw.sin(), y - local_x * yaw.sin() + local_y * yaw.cos()], dim=-1
        )
        assert (ours - corner[:, None]).norm(dim=-1).min(dim=1).values.max() < 1e-4


def test_heading_by_hand_between_conventions():
    """Yaw 0 looks along +x today; the old convention calls that -pi / 2."""
    old = boxes_to_old_convention(torch.tensor([[0.0, 0, 0, 4, 2, 1.5, 0]]))
    assert old[0].tolist() == pytest.approx([0, 0, 0, 2, 4, 1.5, -math.pi / 2])


def test_boxes_of_another_width_are_refused():
    with pytest.raises(ValueError, match='got 8'):
        boxes_from_old_convention(torch.zeros(2, 8))
    with pytest.raises(ValueError, match='got 7'):
        normalize_boxes(torch.zeros(2, 7))
