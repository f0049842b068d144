"""The training criterion: match, then score every decoder layer."""

import torch
from mmdet.utils import reduce_mean
from mmdet3d.registry import MODELS, TASK_UTILS
from torch import Tensor, nn
from torch.nn import functional as F

from bevformer_plugin.errors import InputError, NotFiniteError
from bevformer_plugin.geometry import normalize_boxes


@MODELS.register_module()
class SetCriterion3D(nn.Module):
    """DETR's set criterion for 3-D boxes.

    1. Each decoder layer's queries are matched with the true boxes of their sample.
    2. Matched queries are trained on class and box, all others on background; both losses are divided by the number of
       matched boxes, averaged over processes and at least 1.

    Args:
        assigner: config of the matcher.
        loss_cls: config of mmdet's focal loss, or another that scores each class by a sigmoid of its own.
        loss_bbox: config of mmdet's L1 loss.
        code_weights: weight of each of the ten values of a network box.

    Raises:
        InputError: if there are not ten code weights, or ``loss_cls`` takes the softmax over the classes.
    """

    code_weights: Tensor

    def __init__(self, assigner: dict, loss_cls: dict, loss_bbox: dict, code_weights: list[float]) -> None:
        super().__init__()
        if len(code_weights) != 10:
            raise InputError(f'code_weights takes ten numbers, got {list(code_weights)}')
        self.assigner = TASK_UTILS.build(assigner)
        self.loss_cls = MODELS.build(loss_cls)
        if not getattr(self.loss_cls, 'use_sigmoid', False):
            raise InputError(
                f'loss_cls={loss_cls!r} is no loss of sigmoids: queries have no class for background, and would never '
                "be trained on it; take dict(type='mmdet.FocalLoss', use_sigmoid=True, ...)"
            )
        self.loss_bbox = MODELS.build(loss_bbox)
        self.register_buffer('code_weights', torch.tensor(code_weights, dtype=torch.float32))

    def forward(
        self,
        all_cls_scores: Tensor,
        all_bbox_preds: Tensor,
        gt_labels: list[Tensor],
        gt_boxes: list[Tensor],
        num_groups: int = 1,
    ) -> dict[str, Tensor]:
        """Compute the losses of all decoder layers.

        Args:
            all_cls_scores: (L, B, M, num_classes) logits.
            all_bbox_preds: (L, B, M, 10) network boxes.
            gt_labels: per sample (n,).
            gt_boxes: per sample (n, 9) metric boxes with centre z. A velocity that is not finite is unknown and not
                trained on.
            num_groups: groups that the M queries consist of, one after the other. Each group is matched with all true
                boxes on its own, and losses are the mean of those of the groups.

        Returns:
            ``loss_cls`` and ``loss_bbox`` of the last layer, ``d0.loss_cls``, ``d0.loss_bbox``, ... of the others.

        Raises:
            NotFiniteError: if a prediction or a loss is not finite.
            InputError: if a true box or label is not usable.
        """
        _require_finite(all_cls_scores=all_cls_scores, all_bbox_preds=all_bbox_preds)
        for index, (labels, boxes) in enumerate(zip(gt_labels, gt_boxes, strict=True)):
            _require_usable(index, labels, boxes, num_classes=all_cls_scores.shape[-1])
        num_matched = sum(min(len(boxes), all_cls_scores.shape[2] // num_groups) for boxes in gt_boxes)
        avg_factor = reduce_mean(all_cls_scores.new_tensor([num_matched], dtype=torch.float32)).clamp(min=1).item()

        losses, last = {}, len(all_cls_scores) - 1
        for layer, (cls_scores, bbox_preds) in enumerate(zip(all_cls_scores, all_bbox_preds, strict=True)):
            prefix = '' if layer == last else f'd{layer}.'
            loss_cls, loss_bbox = self._layer_losses(
                _groups_apart(cls_scores.float(), num_groups),
                _groups_apart(bbox_preds.float(), num_groups),
                [labels for labels in gt_labels for _ in range(num_groups)],
                [boxes for boxes in gt_boxes for _ in range(num_groups)],
                avg_factor * num_groups,
            )
            losses[f'{prefix}loss_cls'], losses[f'{prefix}loss_bbox'] = loss_cls, loss_bbox
        _require_finite(**losses)
        return losses

    def _layer_losses(
        self,
        cls_scores: Tensor,
        bbox_preds: Tensor,
        gt_labels: list[Tensor],
        gt_boxes: list[Tensor],
        avg_factor: float,
    ) -> tuple[Tensor, Tensor]:
        """Compute classification and box loss of one decoder layer, whose groups are samples of their own."""
        num_classes = cls_scores.shape[-1]
        one_hot = torch.zeros_like(cls_scores)
        targets, weights = torch.zeros_like(bbox_preds), torch.zeros_like(bbox_preds)
        for sample, (labels, boxes) in enumerate(zip(gt_labels, gt_boxes, strict=True)):
            assigned = self.assigner.assign(cls_scores[sample], bbox_preds[sample], labels, boxes)
            matched = assigned.gt_inds > 0
            one_hot[sample, matched] = F.one_hot(assigned.labels[matched], num_classes).to(one_hot)
            box_targets = normalize_boxes(boxes)[assigned.gt_inds[matched] - 1]
            known = box_targets.isfinite()
            targets[sample, matched] = torch.where(known, box_targets, 0.0)
            weights[sample, matched] = known * self.code_weights
        # One-hot targets take mmdet's PyTorch formulation on every device; indices would need a compiled op on GPU.
        loss_cls = self.loss_cls(cls_scores.flatten(0, 1), one_hot.flatten(0, 1), avg_factor=avg_factor)
        loss_bbox = self.loss_bbox(
            bbox_preds.flatten(0, 1), targets.flatten(0, 1), weights.flatten(0, 1), avg_factor=avg_factor
        )
        return loss_cls, loss_bbox


def _groups_apart(values: Tensor, num_groups: int) -> Tensor:
    """Turn (B, M, ...) values of queries in groups into (B * num_groups, M / num_groups, ...)."""
    return values.unflatten(1, (num_groups, -1)).flatten(0, 1)


def _require_finite(**tensors: Tensor) -> None:
    """Raise a NotFiniteError that names the tensors holding NaN or infinity."""
    bad = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if bad:
        raise NotFiniteError(
            f'not finite: {", ".join(bad)}. Lower the learning rate, clip gradients, or train in '
            'float32; nothing was set to zero in their place.'
        )


def _require_usable(index: int, labels: Tensor, boxes: Tensor, num_classes: int) -> None:
    """Raise an InputError for true boxes without extent or position, or labels outside the classes."""
    if len(labels) != len(boxes):
        raise InputError(f'sample {index} of the batch has {len(boxes)} true boxes but {len(labels)} labels')
    if not boxes[:, :7].isfinite().all() or not (boxes[:, 3:6] > 0).all():
        raise InputError(
            f'sample {index} of the batch has a true box with a size that is not positive or a value '
            'that is not finite'
        )
    if len(labels) and not (labels.min() >= 0 and labels.max() < num_classes):
        raise InputError(
            f'sample {index} of the batch has labels {sorted(set(labels.tolist()))}; the head knows '
            f'{num_classes} classes'
        )
