"""From raw network output to boxes, without non-maximum suppression."""

import torch
from mmdet3d.registry import TASK_UTILS
from torch import Tensor

from bevformer_plugin.geometry import denormalize_boxes


@TASK_UTILS.register_module()
class NMSFreeCoder:
    """Keeps the best-scored (query, class) pairs whose box centre lies in a range.

    Args:
        post_center_range: (x, y, z) minima, then maxima, metres; boxes with their centre outside are dropped.
        max_num: pairs kept before that.
    """

    def __init__(self, post_center_range: tuple[float, ...], max_num: int = 300) -> None:
        if len(post_center_range) != 6:
            raise ValueError(f'post_center_range takes six numbers, got {post_center_range}')
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
        low, high = boxes.new_tensor(self.post_center_range).split(3)
        keep = torch.logical_and(boxes[:, :3] >= low, boxes[:, :3] <= high).all(-1)
        return boxes[keep], scores[keep], (index % num_classes)[keep]
