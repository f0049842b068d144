"""Object queries that start where the BEV itself shows objects, instead of at learned places."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmdet.utils import reduce_mean
from mmdet3d.registry import MODELS
from mmengine.model import bias_init_with_prob
from torch import Tensor, nn
from torch.nn import functional as F

from bevformer_plugin.errors import InputError
from bevformer_plugin.geometry import (
    BOX_VALUES,
    BEVGrid,
    bev_reference_points,
    constants,
    network_center,
    normalize_boxes,
)
from bevformer_plugin.models.bev import Proposals

from .center_heatmap import draw_centers, last_in_each_cell
from .object_queries import ObjectQueries, QuerySource


@dataclass(frozen=True)
class ProposedQueries(ObjectQueries):
    """Queries at the peaks of the heatmap; what they believe of their objects is detached.

    Attributes:
        heatmap: (B, num_classes, bev_h, bev_w) logits of every cell.
        cell_boxes: (B, Q, 10) network box of every cell, metres.
    """

    heatmap: Tensor
    cell_boxes: Tensor


def _gather(cells: Tensor, index: Tensor) -> Tensor:
    """Pick (B, M) cells of a (B, Q, X) map, giving (B, M, X)."""
    return cells.gather(1, index[..., None].expand(-1, -1, cells.shape[-1]))


@MODELS.register_module()
class BEVProposals(QuerySource):
    """Scores every BEV cell and makes object queries of the best peaks, whose boxes the decoder refines.

    The two-stage scheme of Deformable DETR (arXiv 2010.04159, section 4.2) with CenterPoint's centre heatmap
    (arXiv 2006.11275) as first stage: BEV features, backbone and neck are supervised densely, which lets small models
    train from scratch in few steps.

    Args: as :class:`QuerySource`, and
        loss_heatmap: config of mmdet's Gaussian focal loss.
        loss_bbox: config of mmdet's L1 loss.
        code_weights: weight of each of the ten values of a network box.

    Raises:
        InputError: if there are no queries, or more than the grid has cells.
    """

    code_weights: Tensor

    def __init__(
        self,
        embed_dims: int,
        num_classes: int,
        grid: BEVGrid,
        num_query: int,
        loss_heatmap: dict,
        loss_bbox: dict,
        code_weights: list[float],
    ) -> None:
        super().__init__(embed_dims, num_classes, grid, num_query)
        if not 1 <= num_query <= grid.num_queries:
            raise InputError(
                f'num_query is from 1 to the cells of the {grid.bev_h} x {grid.bev_w} BEV grid, got {num_query}'
            )
        self.shared = nn.Sequential(nn.Conv2d(embed_dims, embed_dims, 3, padding=1), nn.ReLU())
        self.heatmap = nn.Conv2d(embed_dims, num_classes, 1)
        self.boxes = nn.Conv2d(embed_dims, BOX_VALUES, 1)
        self.class_embedding = nn.Embedding(num_classes, embed_dims)
        self.content = nn.Linear(embed_dims, embed_dims)
        self.position = nn.Sequential(nn.Linear(3, embed_dims), nn.ReLU(), nn.Linear(embed_dims, embed_dims))
        self.loss_heatmap = MODELS.build(loss_heatmap)
        self.loss_bbox = MODELS.build(loss_bbox)
        self.register_buffer('code_weights', torch.tensor(code_weights, dtype=torch.float32))
        assert self.heatmap.bias is not None
        nn.init.constant_(self.heatmap.bias, bias_init_with_prob(0.01))

    def forward(self, bev_embed: Tensor, proposals: Sequence[Proposals] | None = None) -> ProposedQueries:
        """Score every cell of a (B, Q, C) BEV and turn the strongest peaks into object queries."""
        return self.strongest(bev_embed, *self._score_cells(bev_embed))

    def strongest(self, bev_embed: Tensor, heatmap: Tensor, cell_boxes: Tensor) -> ProposedQueries:
        """Make queries of the cells with the best peaks.

        Args:
            bev_embed: (B, Q, C).
            heatmap: (B, num_classes, bev_h, bev_w) logits of every cell.
            cell_boxes: (B, Q, 10) network box of every cell, metres.
        """
        logits = heatmap.detach()
        peaks = logits.sigmoid() * (logits == F.max_pool2d(logits, 3, stride=1, padding=1))
        # One query a cell: two would start from the same scores and box, and round-off would choose which is matched.
        peak, label = peaks.flatten(2).max(dim=1)  # BxQ
        cell = peak.topk(self.num_query).indices  # BxM
        label = label.gather(1, cell)
        boxes = _gather(cell_boxes.detach(), cell)
        low, high = constants(self.grid.point_cloud_range, boxes.device).split(3)
        reference_points = ((network_center(boxes) - low) / (high - low)).clamp(0, 1)  # BxMx3
        boxes[..., :2] = boxes[..., 4] = 0  # the reference points hold the centre
        return ProposedQueries(
            content=self.content(_gather(bev_embed, cell)) + self.class_embedding(label),
            position=self.position(reference_points.to(bev_embed.dtype)),
            reference_points=reference_points,
            logits=_gather(logits.flatten(2).transpose(1, 2), cell),
            boxes=boxes,
            heatmap=heatmap,
            cell_boxes=cell_boxes,
        )

    def _score_cells(self, bev_embed: Tensor) -> tuple[Tensor, Tensor]:
        """Predict (B, num_classes, bev_h, bev_w) logits and (B, Q, 10) network boxes in metres for all cells."""
        grid = self.grid
        features = self.shared(bev_embed.transpose(1, 2).unflatten(2, (grid.bev_h, grid.bev_w)))
        raw = self.boxes(features).flatten(2).transpose(1, 2).float()  # BxQx10
        low, high = constants(grid.point_cloud_range, raw.device).split(3)
        center = bev_reference_points(grid, raw.device) * (high - low)[:2] + low[:2]
        cell = constants([grid.cell_x, grid.cell_y], raw.device)
        boxes = torch.cat([center + raw[..., :2] * cell, raw[..., 2:]], dim=-1)
        return self.heatmap(features).float(), boxes

    def init_branches(self, cls_branches: Sequence[nn.Sequential], reg_branches: Sequence[nn.Sequential]) -> None:
        """Let the decoder start from the proposals as they are."""
        for branch in (*cls_branches, *reg_branches):
            last = branch[-1]
            assert isinstance(last, nn.Linear)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def loss(
        self, queries: ProposedQueries, gt_labels: Sequence[Tensor], gt_boxes: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """Compute a penalty-reduced focal loss on the heatmap and L1 on the boxes of the cells that hold a centre.

        Args:
            queries: of :meth:`forward`.
            gt_labels: per sample (n,).
            gt_boxes: per sample (n, 9) metric boxes with centre z, LiDAR frame.

        Returns:
            ``proposal.loss_heatmap`` and ``proposal.loss_bbox``.
        """
        heatmap, boxes = queries.heatmap, queries.cell_boxes
        target, box_target = torch.zeros_like(heatmap), torch.zeros_like(boxes)
        weight = torch.zeros_like(boxes)
        for sample, (labels, truth) in enumerate(zip(gt_labels, gt_boxes, strict=True)):
            self._draw(target[sample], box_target[sample], weight[sample], labels, truth)
        num_centers = reduce_mean((weight[..., 0] > 0).sum().float()).clamp(min=1).item()
        heat = heatmap.sigmoid().clamp(1e-4, 1 - 1e-4)
        return {
            'proposal.loss_heatmap': self.loss_heatmap(heat, target, avg_factor=num_centers),
            'proposal.loss_bbox': self.loss_bbox(boxes, box_target, weight, avg_factor=num_centers),
        }

    def _draw(self, heatmap: Tensor, box_target: Tensor, weight: Tensor, labels: Tensor, truth: Tensor) -> None:
        """Write one sample's targets: a Gaussian per object on the heatmap, its box in the centre's cell."""
        grid = self.grid
        x = ((truth[:, 0] - grid.point_cloud_range[0]) / grid.cell_x).floor().long()
        y = ((truth[:, 1] - grid.point_cloud_range[1]) / grid.cell_y).floor().long()
        inside = (x >= 0) & (x < grid.bev_w) & (y >= 0) & (y < grid.bev_h)
        labels, truth, x, y = (values[inside] for values in (labels, truth, x, y))
        # About where a box of the same size still overlaps the object.
        radius = (truth[:, 3:5].amax(dim=1) / max(grid.cell_x, grid.cell_y) / 2).round().clamp(min=1)
        draw_centers(heatmap, labels, torch.stack([x, y], dim=1), radius)
        cell = y * grid.bev_w + x
        last = last_in_each_cell(cell)
        cell, normalized = cell[last], normalize_boxes(truth[last])
        known = normalized.isfinite()
        box_target[cell] = torch.where(known, normalized, 0.0)
        weight[cell] = known * self.code_weights
