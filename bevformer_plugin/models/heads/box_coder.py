"""From raw network output to boxes, without non-maximum suppression."""

import torch
from mmdet3d.registry import TASK_UTILS
from torch import Tensor

from bevformer_plugin.errors import InputError
from bevformer_plugin.geometry import BEVGrid, constants, denormalize_boxes

# Of the published range for decoded boxes, in metres: how far beyond the grid in x and y, and how high and low.
MARGIN, HEIGHT = 10.0, 10.0


@TASK_UTILS.register_module()
class NMSFreeCoder:
    """Keeps the best-scored (query, class) pairs whose box centre lies in a range.

    Args:
        post_center_range: (x, y, z) minima, then maxima, metres; boxes with their centre outside are dropped. The
            head gives that of :func:`post_center_range` unless its config has one.
        max_num: pairs kept before that.
    """

    def __init__(self, post_center_range: tuple[float, ...], max_num: int = 300) -> None:
        if len(post_center_range) != 6:
            raise InputError(f'post_center_range takes six numbers, got {post_center_range}')
        self.post_center_range = tuple(post_center_range)
        self.max_num = max_num

    def decode(self, cls_scores: Tensor, bbox_preds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Decode one sample.

        Args:
            cls_scores: (M, num_classes) logits.
            bbox_preds: (M, 10) network boxes.

        Returns:
            boxes (n, 9) metric with *centre* z, scores (n,) in falling order, labels (n,).
        """
        num_classes = cls_scores.shape[-1]
        scores = cls_scores.float().sigmoid().flatten()
        scores, index = scores.topk(min(self.max_num, len(scores)))
        boxes = denormalize_boxes(bbox_preds.float()[index // num_classes])
        low, high = constants(self.post_center_range, boxes.device).split(3)
        within = torch.logical_and(boxes[:, :3] >= low, boxes[:, :3] <= high).all(-1)
        keep = within.nonzero().squeeze(1)  # a mask would wait for the GPU at each of its three uses
        return boxes[keep], scores[keep], (index % num_classes)[keep]


def post_center_range(grid: BEVGrid, configured: tuple[float, ...] | None = None) -> tuple[float, ...]:
    """The range in which decoded boxes are kept, which follows the range of the BEV grid.

    It is the grid's range and 10 m more in x and in y, and -10 to 10 m in z, or as far as the grid reaches: for the
    published (-51.2, -51.2, -5, 51.2, 51.2, 3) it is the published (-61.2, -61.2, -10, 61.2, 61.2, 10).

    Args:
        grid: the BEV grid.
        configured: a range to take instead.

    Returns:
        (x, y, z) minima, then maxima, metres, LiDAR frame.

    Raises:
        InputError: if the configured range has not six values, or would drop boxes that lie within the grid's.
    """
    x_min, y_min, z_min, x_max, y_max, z_max = grid.point_cloud_range
    if configured is None:
        lowest, highest = min(z_min, -HEIGHT), max(z_max, HEIGHT)
        return x_min - MARGIN, y_min - MARGIN, lowest, x_max + MARGIN, y_max + MARGIN, highest
    configured = tuple(configured)
    inside = (
        len(configured) == 6
        and all(a <= b for a, b in zip(configured[:3], (x_min, y_min, z_min), strict=True))
        and all(a >= b for a, b in zip(configured[3:], (x_max, y_max, z_max), strict=True))
    )
    if not inside:
        raise InputError(
            f'box_coder.post_center_range={configured} does not hold all of the point_cloud_range '
            f'{grid.point_cloud_range}, so detections would be dropped: leave it out, and it follows the range'
        )
    return configured
