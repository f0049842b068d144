"""The detection decoder: object queries attend to each other, then to the BEV, and refine their reference points."""

from dataclasses import dataclass

import torch
from mmcv.cnn.bricks.transformer import FFN
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule, ModuleList
from torch import Tensor, nn

from bevformer_plugin.errors import InputError
from bevformer_plugin.geometry import network_center

from .deformable_attention import DeformableAttentionCore

REFERENCE_EPS = 1e-5  # a reference point nearer to the edge of the range counts as this far from it


@dataclass(frozen=True)
class DecodedQueries:
    """The states, boxes and reference points that the layers of a decoder give.

    Attributes:
        states: (L, B, M, C) of every layer.
        boxes: (L, B, M, 10) raw outputs of every layer's box branch, of which the centre is relative to the layer's
            reference points, as logits of fractions of the range.
        references: (L + 1, B, M, 3) fractions of the range; references[l] is what layer l used, the last is what the
            last layer moved them to. They are detached between layers.
    """

    states: Tensor
    boxes: Tensor
    references: Tensor


@MODELS.register_module()
class DetectionTransformerDecoderLayer(BaseModule):
    """One layer of the decoder: self-attention, norm, deformable attention to the BEV, norm, FFN, norm.

    Args:
        embed_dims: channels C.
        num_heads: attention heads.
        feedforward_channels: hidden channels of the FFN.
        num_points: BEV sampling points per head.
        dropout: after each attention and inside the FFN.
    """

    def __init__(
        self, embed_dims: int, num_heads: int, feedforward_channels: int, num_points: int = 4, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.self_attention = nn.MultiheadAttention(embed_dims, num_heads, dropout=dropout, batch_first=True)
        self.cross_attention = DeformableAttentionCore(embed_dims, num_heads, num_levels=1, num_points=num_points)
        self.output_proj = nn.Linear(embed_dims, embed_dims)
        self.dropout = nn.Dropout(dropout)
        self.ffn = FFN(embed_dims, feedforward_channels, ffn_drop=dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(embed_dims) for _ in range(3))

    def forward(
        self,
        query: Tensor,
        query_pos: Tensor,
        bev_embed: Tensor,
        reference_points: Tensor,
        bev_shape: Tensor,
        num_groups: int = 1,
    ) -> Tensor:
        """Run the layer.

        Args:
            query: (B, M, C).
            query_pos: (B, M, C).
            bev_embed: (B, Q, C).
            reference_points: (B, M, 2) fractions of the grid.
            bev_shape: (1, 2) integer (bev_h, bev_w).
            num_groups: groups of queries, one after the other; a query attends to those of its own group.

        Returns:
            (B, M, C).
        """
        with_pos, content = (
            states.unflatten(1, (num_groups, -1)).flatten(0, 1) for states in (query + query_pos, query)
        )
        attended = self.self_attention(with_pos, with_pos, content, need_weights=False)[0].reshape(query.shape)
        query = self.norms[0](query + self.dropout(attended))

        offsets, weights = (x.squeeze(3) for x in self.cross_attention.predict_sampling(query + query_pos))
        sampled = self.cross_attention.sample(
            self.cross_attention.project_value(bev_embed),
            bev_shape,
            reference_points[:, :, None, None, None, :],
            offsets,
            weights,
        )
        query = self.norms[1](query + self.dropout(self.output_proj(sampled)))
        return self.norms[2](self.ffn(query))


@MODELS.register_module()
class DetectionTransformerDecoder(BaseModule):
    """Decoder layers with iterative refinement of the reference points (Deformable DETR, appendix A.4).

    Args: as :class:`DetectionTransformerDecoderLayer`, and
        num_layers: number of layers.
    """

    def __init__(
        self,
        num_layers: int,
        embed_dims: int,
        num_heads: int,
        feedforward_channels: int,
        num_points: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise InputError(f'num_layers of DetectionTransformerDecoder is at least 1, got {num_layers}')
        self.embed_dims = embed_dims
        self.num_layers = num_layers
        self.layers = ModuleList(
            DetectionTransformerDecoderLayer(embed_dims, num_heads, feedforward_channels, num_points, dropout)
            for _ in range(num_layers)
        )

    def forward(
        self,
        query: Tensor,
        query_pos: Tensor,
        bev_embed: Tensor,
        reference_points: Tensor,
        bev_hw: tuple[int, int],
        reg_branches: nn.ModuleList,
        num_groups: int = 1,
    ) -> DecodedQueries:
        """Decode object queries.

        Args:
            query: (B, M, C).
            query_pos: (B, M, C).
            bev_embed: (B, Q, C).
            reference_points: (B, M, 3) in (x, y, z), fractions of the range.
            bev_hw: (bev_h, bev_w).
            reg_branches: one per layer, from its states to the ten values of a network box, of which the centre's
                three move the reference points.
            num_groups: groups of queries, one after the other, that do not see each other.

        Raises:
            InputError: if there is not one branch per layer.
        """
        if len(reg_branches) != self.num_layers:
            raise InputError(f'{self.num_layers} decoder layers need as many reg_branches, got {len(reg_branches)}')
        bev_shape = torch.tensor([bev_hw])
        states, references, boxes = [], [reference_points], []
        for layer, reg_branch in zip(self.layers, reg_branches, strict=True):
            reference = references[-1]
            query = layer(query, query_pos, bev_embed, reference[..., :2], bev_shape, num_groups)
            box = reg_branch(query)
            states.append(query)
            boxes.append(box)
            references.append((torch.logit(reference, eps=REFERENCE_EPS) + network_center(box)).sigmoid().detach())
        return DecodedQueries(torch.stack(states), torch.stack(boxes), torch.stack(references))
