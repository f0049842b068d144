"""From a BEV to 3-D boxes: object queries, decoder, class and box branches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from mmdet3d.registry import MODELS, TASK_UTILS
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.structures import BaseDataElement, InstanceData
from torch import Tensor, nn

from bevformer_plugin.geometry import BOX_VALUES, BEVGrid, constants, network_center
from bevformer_plugin.handed_down import with_handed_down
from bevformer_plugin.layers import DecodedQueries, Float32Linear, init_transformer_weights
from bevformer_plugin.layers.decoder import REFERENCE_EPS
from bevformer_plugin.models.bev import EncodedFrames, ProposalLimits, Proposals

from .bev_head import BEVHead, true_objects
from .box_coder import NMSFreeCoder, post_center_range
from .object_queries import ObjectQueries


@dataclass(frozen=True)
class DetectionOutputs:
    """Class scores and boxes of every decoder layer, before any is chosen.

    Attributes:
        cls_scores: (L, B, M, num_classes) float32 logits.
        bbox_preds: (L, B, M, 10) network boxes (cx, cy, log l, log w, cz, log h, sin yaw, cos yaw, vx, vy), metres,
            LiDAR frame, cz the box's centre.
        queries: what the decoder started from.
    """

    cls_scores: Tensor
    bbox_preds: Tensor
    queries: ObjectQueries


@MODELS.register_module()
class DetectionHead(BEVHead):
    """Detects objects in a BEV (paper section 3.5).

    Args:
        num_classes: object classes.
        queries: config of what makes the object queries, :class:`LearnedQueries` as published,
            :class:`BEVProposals` or :class:`PerspectiveProposals`, without what is given here.
        decoder: config of the decoder, without what is given here.
        criterion: config of the training criterion.
        box_coder: config of the decoder of raw boxes; its ``post_center_range`` follows the grid's range.
        embed_dims: channels C; the detector sets it.
        grid: the BEV grid; the detector sets it.
        num_heads: heads of every attention.
        feedforward_channels: hidden channels of every FFN.
        dropout: of every attention and FFN.

    Raises:
        InputError: if ``box_coder.post_center_range`` would drop boxes within the grid, or a part sets what is given
            here.
    """

    predicts: ClassVar[tuple[str, ...]] = ('pred_instances_3d',)

    def __init__(
        self,
        num_classes: int,
        queries: dict,
        decoder: dict,
        criterion: dict,
        box_coder: dict,
        embed_dims: int,
        grid: BEVGrid,
        num_heads: int = 8,
        feedforward_channels: int = 512,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(embed_dims, grid)
        self.num_classes = num_classes
        of_queries = {'embed_dims': embed_dims, 'num_classes': num_classes, 'grid': grid}
        self.queries = MODELS.build(with_handed_down(queries, of_queries, 'queries', 'the detection head'))
        of_decoder = {
            'embed_dims': embed_dims,
            'num_heads': num_heads,
            'feedforward_channels': feedforward_channels,
            'dropout': dropout,
        }
        self.decoder = MODELS.build(with_handed_down(decoder, of_decoder, 'decoder', 'the detection head'))
        self.criterion = MODELS.build(criterion)
        kept_range = post_center_range(grid, box_coder.get('post_center_range'))
        self.box_coder = TASK_UTILS.build({**box_coder, 'post_center_range': kept_range})
        cls_branches = [self._cls_branch() for _ in range(self.decoder.num_layers)]
        reg_branches = [self._reg_branch() for _ in range(self.decoder.num_layers)]
        self.queries.init_branches(cls_branches, reg_branches)
        self.cls_branches, self.reg_branches = nn.ModuleList(cls_branches), nn.ModuleList(reg_branches)

    def _cls_branch(self) -> nn.Sequential:
        width = self.embed_dims
        return nn.Sequential(
            nn.Linear(width, width),
            nn.LayerNorm(width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.LayerNorm(width),
            nn.ReLU(),
            nn.Linear(width, self.num_classes),
        )

    def _reg_branch(self) -> nn.Sequential:
        width = self.embed_dims
        return nn.Sequential(
            Float32Linear(width, width),
            nn.ReLU(),
            Float32Linear(width, width),
            nn.ReLU(),
            Float32Linear(width, BOX_VALUES),
        )

    def init_weights(self) -> None:
        """Initialise the decoder with :func:`init_transformer_weights`; the branches stay as they are."""
        super().init_weights()
        init_transformer_weights(self.decoder)

    @property
    def proposal_limits(self) -> ProposalLimits | None:
        """Which proposals of the perspective head the object queries start from; None if from none."""
        return self.queries.proposal_limits

    def forward(self, bev_embed: Tensor, proposals: Sequence[Proposals] | None = None) -> DetectionOutputs:
        """Detect objects in a BEV.

        Args:
            bev_embed: (B, Q, C).
            proposals: per sample, if the head has ``proposal_limits``.
        """
        queries = self.queries(bev_embed, proposals)
        decoded = self.decoder(
            queries.content,
            queries.position,
            bev_embed,
            queries.reference_points,
            (self.grid.bev_h, self.grid.bev_w),
            self.reg_branches,
            queries.num_groups,
        )
        branches = zip(self.cls_branches, decoded.states, strict=True)
        scores = torch.stack([branch(states) + queries.logits for branch, states in branches])
        # Scores rank boxes: float32 also under autocast.
        return DetectionOutputs(scores.float(), self._boxes(decoded, queries), queries)

    def _boxes(self, decoded: DecodedQueries, queries: ObjectQueries) -> Tensor:
        """Add the decoder's corrections to what the queries believed, giving (L, B, M, 10) network boxes in metres."""
        boxes = decoded.boxes + queries.boxes
        low, high = constants(self.grid.point_cloud_range, boxes.device).split(3)
        moved = torch.logit(decoded.references[:-1], eps=REFERENCE_EPS) + network_center(boxes)
        center = moved.sigmoid() * (high - low) + low
        return torch.cat([center[..., :2], boxes[..., 2:4], center[..., 2:], boxes[..., 5:]], dim=-1)

    def loss(self, encoded: EncodedFrames, samples: Sequence[Det3DDataSample]) -> dict[str, Tensor]:
        """Compute losses against ``gt_instances_3d`` (``bboxes_3d`` and ``labels_3d``) of every sample."""
        outputs = self(encoded.bev_embed, encoded.proposals)
        device = outputs.bbox_preds.device
        gt_boxes, gt_labels = [], []
        for objects in true_objects(samples):
            boxes = objects.get('bboxes_3d').to(device)
            gt_boxes.append(torch.cat([boxes.gravity_center, boxes.tensor[:, 3:]], dim=-1).float())
            gt_labels.append(objects.get('labels_3d').to(device))
        return {
            **self.criterion(outputs.cls_scores, outputs.bbox_preds, gt_labels, gt_boxes, outputs.queries.num_groups),
            **self.queries.loss(outputs.queries, gt_labels, gt_boxes),
        }

    def predict(self, encoded: EncodedFrames) -> Mapping[str, Sequence[BaseDataElement]]:
        """Predict the boxes of every sample, see :meth:`detections`."""
        return {'pred_instances_3d': self.detections(self(encoded.bev_embed, encoded.proposals))}

    def detections(self, outputs: DetectionOutputs) -> list[InstanceData]:
        """Decode the last layer: ``bboxes_3d`` (LiDAR, bottom centre, velocities), ``scores_3d``, ``labels_3d``."""
        last = zip(outputs.cls_scores[-1], outputs.bbox_preds[-1], strict=True)
        return [decode_instances(self.box_coder, cls_scores, bbox_preds) for cls_scores, bbox_preds in last]


def decode_instances(box_coder: NMSFreeCoder, cls_scores: Tensor, bbox_preds: Tensor) -> InstanceData:
    """Decode raw outputs of one sample into ``bboxes_3d`` (LiDAR, bottom centre), ``scores_3d`` and ``labels_3d``.

    Args:
        box_coder: that decodes.
        cls_scores: (M, num_classes) logits.
        bbox_preds: (M, 10) network boxes.
    """
    boxes, scores, labels = box_coder.decode(cls_scores, bbox_preds)
    bboxes_3d = LiDARInstance3DBoxes(boxes, box_dim=boxes.shape[-1], origin=(0.5, 0.5, 0.5))
    return InstanceData(bboxes_3d=bboxes_3d, scores_3d=scores, labels_3d=labels)
