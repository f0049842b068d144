"""One-to-one matching of object queries and true boxes."""

import torch
from mmdet.models.task_modules import AssignResult
from mmdet3d.registry import TASK_UTILS
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from bevformer_plugin.errors import InputError
from bevformer_plugin.geometry import normalize_boxes

MATCHED_VALUES = 8  # velocity takes no part in the matching
TIE_BREAK = 1e-9  # of the squared distance against the L1 distance


@TASK_UTILS.register_module()
class HungarianAssigner3D:
    """Finds the assignment of least total cost (DETR's matcher in 3-D).

    1. The cost of a pair is the classification cost plus the L1 distance of the network boxes' first eight values.
    2. ``TIE_BREAK`` times the squared distance is added to the L1 distance, in float64; it decides between assignments
       of equal cost.
    3. ``scipy.optimize.linear_sum_assignment`` gives every true box its own query; the other queries are background.

    L1 distances tie whenever two true boxes b1, b2 of a class lie on the same side of two queries q1, q2 in all eight
    values: their sum stays the same when the two are swapped. Round-off would then choose, differently on every
    processor, and the two queries would learn other velocities. The squared distances of the two assignments differ by
    2 (q1 - q2) . (b1 - b2), which is zero by coincidence only, and not throughout a region of space as the difference
    of the L1 distances is. Rounding the costs instead would only move the borders at which round-off decides.

    Two magnitudes make 1e-9 a fair weight. What predictions and targets owe to round-off is the same in both
    assignments and cancels; what the sums add, in float64, is about 1e-13, while boxes and queries a metre apart
    differ by 2e-9. And within 100 m the squared distance adds less than 2e-5 m, which is about what a float32 can tell
    of such an L1 distance: where the published float32 costs differ by more, the assignment is the published one.

    Args:
        cls_cost: config of a classification match cost of mmdet.
        reg_cost_weight: weight of the distance.
        smooth_l1_beta: differences below it cost their square over twice of it, as in a smooth L1 loss, and greater
            ones half of it less than their L1 distance; None takes the L1 distance.

    Raises:
        InputError: if ``smooth_l1_beta`` is not above 0.
    """

    def __init__(self, cls_cost: dict, reg_cost_weight: float, smooth_l1_beta: float | None = None) -> None:
        if smooth_l1_beta is not None and not smooth_l1_beta > 0:
            raise InputError(f'smooth_l1_beta is above 0, got {smooth_l1_beta}: leave it out for the L1 distance')
        self.cls_cost = TASK_UTILS.build(cls_cost)
        self.reg_cost_weight = reg_cost_weight
        self.smooth_l1_beta = smooth_l1_beta

    @torch.no_grad()
    def assign(self, cls_scores: Tensor, bbox_preds: Tensor, gt_labels: Tensor, gt_boxes: Tensor) -> AssignResult:
        """Match one sample.

        Args:
            cls_scores: (M, num_classes) logits.
            bbox_preds: (M, 10) network boxes.
            gt_labels: (n,).
            gt_boxes: (n, 9) metric boxes with centre z.

        Returns:
            ``gt_inds`` (M,): 0 is background, k + 1 the true box k; ``labels`` (M,): -1 is background.
        """
        gt_inds = torch.zeros(len(cls_scores), dtype=torch.long, device=cls_scores.device)
        labels = torch.full_like(gt_inds, -1)
        if len(gt_boxes):
            pair_cost = self.cls_cost(InstanceData(scores=cls_scores.float()), InstanceData(labels=gt_labels))
            targets = normalize_boxes(gt_boxes)[:, :MATCHED_VALUES].double()
            errors = (bbox_preds[:, None, :MATCHED_VALUES].double() - targets).abs()
            distance = self._distances(errors).sum(-1) + TIE_BREAK * errors.square().sum(-1)
            cost = pair_cost.double() + self.reg_cost_weight * distance
            queries, objects = linear_sum_assignment(cost.cpu())
            queries, objects = torch.as_tensor(queries).to(gt_inds), torch.as_tensor(objects).to(gt_inds)
            gt_inds[queries] = objects + 1
            labels[queries] = gt_labels[objects]
        # mmdet takes None where an assigner knows no overlaps, whatever its annotation says.
        return AssignResult(len(gt_boxes), gt_inds, None, labels)  # pyright: ignore[reportArgumentType]

    def _distances(self, errors: Tensor) -> Tensor:
        """Turn absolute differences into the costs of single values."""
        if self.smooth_l1_beta is None:
            return errors
        return F.smooth_l1_loss(errors, torch.zeros_like(errors), beta=self.smooth_l1_beta, reduction='none')
