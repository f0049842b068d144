"""Object queries that start where the BEV itself shows objects, instead of at learned places."""
import torch
from mmdet3d.models.utils import draw_heatmap_gaussian, gaussian_radius
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule, bias_init_with_prob
from torch import Tensor, nn
from torch.nn import functional as F

from bevformer_plugin.geometry import BEVGrid, bev_reference_points, normalize_boxes

BOX_CODE_SIZE = 10


@MODELS.register_module()
class BEVProposals(BaseModule):
    """Scores every BEV cell and lets the best peaks become the object queries.

    The two-stage scheme of Deformable DETR (arXiv 2010.04159, section 4.2) with CenterPoint's centre heatmap
    (arXiv 2006.11275) as first stage: BEV features, backbone and neck are supervised densely, which lets small models
    train from scratch in few steps.

    Args:
        embed_dims: channels C.
        num_classes: object classes.
        grid: the BEV grid.
        num_query: queries M to select.
        loss_heatmap: config of mmdet's Gaussian focal loss.
        loss_bbox: config of mmdet's L1 loss.
        code_weights: weight of each of the ten values of a network box.

    Raises:
        ValueError: if the grid has fewer cells than queries.
    """

    def __init__(self, embed_dims: int, num_classes: int, grid: BEVGrid, num_query: int, loss_heatmap: dict,
                 loss_bbox: dict, code_weights: list[float]) -> None:
        super().__init__()
        if num_query > grid.num_queries:
            raise ValueError(f'num_query={num_query} is more than the cells of a {grid.bev_h} x {grid.bev_w} BEV grid')
        self.grid = grid
        self.num_classes = num_classes
        self.num_query = num_query
        self.shared = nn.Sequential(nn.Conv2d(embed_dims, embed_dims, 3, padding=1), nn.ReLU())
        self.heatmap = nn.Conv2d(embed_dims, num_classes, 1)
        self.boxes = nn.Conv2d(embed_dims, BOX_CODE_SIZE, 1)
        self.class_embedding = nn.Embedding(num_classes, embed_dims)
        self.content = nn.Linear(embed_dims, embed_dims)
        self.position = nn.Sequential(nn.Linear(3, embed_dims), nn.ReLU(), nn.Linear(embed_dims, embed_dims))
        self.loss_heatmap = MODELS.build(loss_heatmap)
        self.loss_bbox = MODELS.build(loss_bbox)
        self.register_buffer('code_weights', torch.tensor(code_weights, dtype=torch.float32))
        nn.init.constant_(self.heatmap.bias, bias_init_with_prob(0.01))

    def forward(self, bev_embed: Tensor) -> dict[str, Tensor]:
        """Score every cell.

        Args:
            bev_embed: (B, Q, C).

        Returns:
            ``heatmap`` (B, num_classes, bev_h, bev_w) logits and ``boxes`` (B, Q, 10) network boxes in metres.
        """
        grid = self.grid
        features = self.shared(bev_embed.transpose(1, 2).unflatten(2, (grid.bev_h, grid.bev_w)))
        raw = self.boxes(features).flatten(2).transpose(1, 2).float()  # BxQx10
        low, high = raw.new_tensor(grid.point_cloud_range).split(3)
        center = bev_reference_points(grid, raw.device) * (high - low)[:2] + low[:2]
        cell = raw.new_tensor([grid.cell_x, grid.cell_y])
        boxes = torch.cat([center + raw[..., :2] * cell, raw[..., 2:]], dim=-1)
        return {'heatmap': self.heatmap(features).float(), 'boxes': boxes}

    def queries(self, bev_embed: Tensor, proposals: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Turn the strongest peaks into object queries.

        Args:
            bev_embed: (B, Q, C).
            proposals: of :meth:`forward`.

        Returns:
            query (B, M, C), query_pos (B, M, C), and reference points (B, M, 3), fractions of the range, detached.
        """
        scores = proposals['heatmap'].detach().sigmoid()
        peaks = scores * (scores == F.max_pool2d(scores, 3, stride=1, padding=1))
        best = peaks.flatten(1).topk(self.num_query).indices  # BxM over class x cell
        label, cell = best // self.grid.num_queries, best % self.grid.num_queries
        boxes = proposals['boxes'].detach().gather(1, cell[..., None].expand(-1, -1, BOX_CODE_SIZE))
        low, high = boxes.new_tensor(self.grid.point_cloud_range).split(3)
        reference_points = ((boxes[..., [0, 1, 4]] - low) / (high - low)).clamp(0, 1)  # BxMx3
        content = bev_embed.gather(1, cell[..., None].expand(-1, -1, bev_embed.shape[-1]))  # BxMxC
        query = self.content(content) + self.class_embedding(label)
        return query, self.position(reference_points.to(query.dtype)), reference_points

    def loss(self, proposals: dict[str, Tensor], gt_labels: list[Tensor],
             gt_boxes: list[Tensor]) -> dict[str, Tensor]:
        """Penalty-reduced focal loss on the heatmap, L1 on the boxes of the cells that hold a centre.

        Args:
            proposals: of :meth:`forward`.
            gt_labels: per sample (n,).
            gt_boxes: per sample (n, 9) metric boxes with centre z, LiDAR frame.

        Returns:
            ``proposal.loss_heatmap`` and ``proposal.loss_bbox``.
        """
        heatmap, boxes = proposals['heatmap'], proposals['boxes']
        target, box_target = torch.zeros_like(heatmap), torch.zeros_like(boxes)
        weight = torch.zeros_like(boxes)
        for sample, (labels, truth) in enumerate(zip(gt_labels, gt_boxes, strict=True)):
            self._draw(target[sample], box_target[sample], weight[sample], labels, truth)
        num_centers = max(1, int((weight[..., 0] > 0).sum()))
        heat = heatmap.sigmoid().clamp(1e-4, 1 - 1e-4)
        return {'proposal.loss_heatmap': self.loss_heatmap(heat, target, avg_factor=num_centers),
                'proposal.loss_bbox': self.loss_bbox(boxes, box_target, weight, avg_factor=num_centers)}

    def _draw(self, heatmap: Tensor, box_target: Tensor, weight: Tensor, labels: Tensor, truth: Tensor) -> None:
        """Write one sample's targets: a Gaussian per object on the heatmap, its box in the centre's cell."""
        grid = self.grid
        x = ((truth[:, 0] - grid.point_cloud_range[0]) / grid.cell_x).floor().long()
        y = ((truth[:, 1] - grid.point_cloud_range[1]) / grid.cell_y).floor().long()
        inside = (x >= 0) & (x < grid.bev_w) & (y >= 0) & (y < grid.bev_h)
        normalized = normalize_boxes(truth)
        for index in inside.nonzero().flatten().tolist():
            length, width = truth[index, 3] / grid.cell_y, truth[index, 4] / grid.cell_x
            radius = max(1, int(gaussian_radius((length, width), min_overlap=0.1)))
            draw_heatmap_gaussian(heatmap[labels[index]], (x[index], y[index]), radius)
            cell = y[index] * grid.bev_w + x[index]
            known = normalized[index].isfinite()
            box_target[cell] = torch.where(known, normalized[index], 0.0)
            weight[cell] = known * self.code_weights
