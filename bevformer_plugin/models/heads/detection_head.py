"""The head: learned queries, the transformer around them, class and box branches."""

import math

import torch
from mmdet.models.layers import LearnedPositionalEncoding
from mmdet3d.registry import MODELS, TASK_UTILS
from mmdet3d.structures import LiDARInstance3DBoxes
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor, nn

from bevformer_plugin.errors import InputError
from bevformer_plugin.geometry import BEVGrid
from bevformer_plugin.handed_down import with_handed_down
from bevformer_plugin.layers import Float32Linear
from bevformer_plugin.models.bev.frames import BEVHistory, absolute_can_bus

from .box_coder import post_center_range

BOX_CODE_SIZE = 10
FOCAL_PRIOR = 0.01  # chance of "object" that every class starts from


@MODELS.register_module()
class BEVFormerHead(BaseModule):
    """Builds the BEV from camera features and detects objects in it.

    Args:
        num_classes: object classes.
        transformer: config of :class:`BEVFormerTransformer`, without what is given here.
        criterion: config of the training criterion.
        box_coder: config of the decoder of raw boxes; its ``post_center_range`` follows the grid's range.
        grid: the BEV grid; the detector sets it.
        num_cameras: camera views; the detector sets it.
        num_levels: feature levels of the neck; the detector sets it.
        ego_motion: see :meth:`EgoAlignment.from_config`; the detector sets it.
        embed_dims: channels C, as the neck's output.
        num_query: object queries M.
        proposals: config of :class:`BEVProposals`, which then makes the queries; None learns them, as published.
        bev_embedding_std: spread of the initial BEV queries. 1 as published; what a small model sees of the images
            drowns in it for its first thousand steps.
        positional_encoding_init: MMEngine's ``init_cfg`` of the initial BEV positions; None draws them from a
            standard normal distribution, as published.

    Raises:
        InputError: if there are no queries, or ``box_coder.post_center_range`` would drop boxes within the grid.
    """

    def __init__(
        self,
        num_classes: int,
        transformer: dict,
        criterion: dict,
        box_coder: dict,
        grid: BEVGrid,
        num_cameras: int,
        num_levels: int,
        ego_motion: dict | None = None,
        embed_dims: int = 256,
        num_query: int = 900,
        proposals: dict | None = None,
        bev_embedding_std: float = 1.0,
        positional_encoding_init: dict | None = None,
    ) -> None:
        super().__init__()
        if num_query < 1:
            raise InputError(f'num_query is at least 1, got {num_query}')
        self.num_classes = num_classes
        self.embed_dims = embed_dims
        self.num_query = num_query
        self.grid = grid
        of_transformer = {
            'num_cameras': num_cameras,
            'num_levels': num_levels,
            'embed_dims': embed_dims,
            'ego_motion': ego_motion,
            'learned_reference_points': proposals is None,
        }
        self.transformer = MODELS.build(with_handed_down(transformer, of_transformer, 'transformer', 'pts_bbox_head'))
        self.criterion = MODELS.build(criterion)
        kept_range = post_center_range(grid, box_coder.get('post_center_range'))
        self.box_coder = TASK_UTILS.build({**box_coder, 'post_center_range': kept_range})
        self.positional_encoding = LearnedPositionalEncoding(
            embed_dims // 2, grid.bev_h, grid.bev_w, init_cfg=positional_encoding_init
        )
        self.bev_embedding = nn.Embedding(grid.num_queries, embed_dims)
        nn.init.normal_(self.bev_embedding.weight, std=bev_embedding_std)
        if proposals is None:
            self.proposals = None
            self.query_embedding = nn.Embedding(num_query, 2 * embed_dims)
        else:
            of_proposals = {
                'embed_dims': embed_dims,
                'num_classes': num_classes,
                'grid': grid,
                'num_query': num_query,
            }
            self.proposals = MODELS.build(with_handed_down(proposals, of_proposals, 'proposals', 'pts_bbox_head'))
        num_layers = self.transformer.decoder.num_layers
        self.cls_branches = nn.ModuleList(self._cls_branch() for _ in range(num_layers))
        self.reg_branches = nn.ModuleList(self._reg_branch() for _ in range(num_layers))
        if proposals is not None:
            for branch in (*self.cls_branches, *self.reg_branches):  # start from the proposals as they are
                nn.init.zeros_(branch[-1].weight)
                nn.init.zeros_(branch[-1].bias)

    def _cls_branch(self) -> nn.Sequential:
        width = self.embed_dims
        branch = nn.Sequential(
            nn.Linear(width, width),
            nn.LayerNorm(width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.LayerNorm(width),
            nn.ReLU(),
            nn.Linear(width, self.num_classes),
        )
        nn.init.constant_(branch[-1].bias, -math.log((1 - FOCAL_PRIOR) / FOCAL_PRIOR))
        return branch

    def _reg_branch(self) -> nn.Sequential:
        width = self.embed_dims
        return nn.Sequential(
            Float32Linear(width, width),
            nn.ReLU(),
            Float32Linear(width, width),
            nn.ReLU(),
            Float32Linear(width, BOX_CODE_SIZE),
        )

    def encode(
        self, features: list[Tensor], image_hw: tuple[int, int], metas: list[dict], histories: list[BEVHistory | None]
    ) -> Tensor:
        """Build the BEV of one frame of every sample.

        Args:
            features: per level (B, N, C, h, w).
            image_hw: padded image size in pixels.
            metas: per sample the frame's meta: ``lidar2img`` (N, 4, 4), ``can_bus`` (18,).
            histories: per sample what its previous frame left behind, or None.

        Returns:
            (B, Q, C).
        """
        device = self.bev_embedding.weight.device
        lidar2img = torch.stack([torch.as_tensor(meta['lidar2img'], dtype=torch.float32) for meta in metas]).to(device)
        can_bus = torch.stack(
            [
                self.transformer.ego_alignment.relative(absolute_can_bus(meta), history and history.can_bus)
                for meta, history in zip(metas, histories, strict=True)
            ]
        )
        has_history = torch.tensor([history is not None for history in histories])
        prev_bev = None
        if any(history is not None for history in histories):
            blank = torch.zeros_like(self.bev_embedding.weight)
            prev_bev = torch.stack([blank if history is None else history.bev_embed for history in histories])

        empty_mask = torch.zeros(1, self.grid.bev_h, self.grid.bev_w, device=device)
        bev_pos = self.positional_encoding(empty_mask)[0].flatten(1).T  # 1xCxHxW -> QxC
        return self.transformer.encode(
            features,
            self.bev_embedding.weight,
            bev_pos,
            lidar2img,
            image_hw,
            can_bus,
            prev_bev,
            has_history,
            self.grid,
        )

    def decode(self, bev_embed: Tensor) -> dict[str, Tensor]:
        """Detect objects in a (B, Q, C) BEV.

        Returns:
            ``bev_embed`` (B, Q, C), ``all_cls_scores`` (L, B, M, num_classes) logits, and ``all_bbox_preds``
            (L, B, M, 10): (cx, cy, log l, log w, cz, log h, sin yaw, cos yaw, vx, vy), metres, cz the box's centre.
            With proposals, ``proposals`` holds the scored cells.
        """
        outputs = {'bev_embed': bev_embed}
        if self.proposals is None:
            query_pos, query = self.query_embedding.weight.expand(len(bev_embed), -1, -1).chunk(2, dim=-1)
            reference_points, first_logits, first_boxes = None, 0.0, 0.0
        else:
            outputs['proposals'] = self.proposals(bev_embed)
            start = self.proposals.queries(bev_embed, outputs['proposals'])
            query, query_pos, reference_points = start.content, start.position, start.reference_points
            first_logits, first_boxes = start.logits, start.boxes
        states, references = self.transformer.decode(
            bev_embed, query, query_pos, reference_points, self.grid, self.reg_branches
        )
        low, high = states.new_tensor(self.grid.point_cloud_range).split(3)
        scores, boxes = [], []
        for layer, (state, reference) in enumerate(zip(states, references[:-1], strict=True)):
            raw = self.reg_branches[layer](state) + first_boxes
            center = (torch.logit(reference, eps=1e-5) + raw[..., [0, 1, 4]]).sigmoid() * (high - low) + low
            boxes.append(torch.cat([center[..., :2], raw[..., 2:4], center[..., 2:], raw[..., 5:]], dim=-1))
            scores.append(self.cls_branches[layer](state) + first_logits)
        # Scores rank boxes: float32 also under autocast.
        return {**outputs, 'all_cls_scores': torch.stack(scores).float(), 'all_bbox_preds': torch.stack(boxes)}

    def loss(self, outputs: dict[str, Tensor], gt_instances: list[InstanceData]) -> dict[str, Tensor]:
        """Losses of :meth:`decode`'s outputs against ``bboxes_3d`` and ``labels_3d`` of every sample."""
        device = outputs['all_bbox_preds'].device
        gt_boxes, gt_labels = [], []
        for instances in gt_instances:
            boxes = instances.bboxes_3d.to(device)
            gt_boxes.append(torch.cat([boxes.gravity_center, boxes.tensor[:, 3:]], dim=-1).float())
            gt_labels.append(instances.labels_3d.to(device))
        losses = self.criterion(outputs['all_cls_scores'], outputs['all_bbox_preds'], gt_labels, gt_boxes)
        if self.proposals is not None:
            losses.update(self.proposals.loss(outputs['proposals'], gt_labels, gt_boxes))
        return losses

    def predict(self, outputs: dict[str, Tensor]) -> list[InstanceData]:
        """Per sample ``bboxes_3d`` (LiDAR, bottom centre, with velocity), ``scores_3d`` and ``labels_3d``."""
        results = []
        for cls_scores, bbox_preds in zip(outputs['all_cls_scores'][-1], outputs['all_bbox_preds'][-1], strict=True):
            boxes, scores, labels = self.box_coder.decode(cls_scores, bbox_preds)
            bboxes_3d = LiDARInstance3DBoxes(boxes, box_dim=boxes.shape[-1], origin=(0.5, 0.5, 0.5))
            results.append(InstanceData(bboxes_3d=bboxes_3d, scores_3d=scores, labels_3d=labels))
        return results
