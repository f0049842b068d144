"""Temporal self-attention (TSA): the BEV queries look at the previous BEV and at themselves."""

import torch
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from .deformable_attention import DeformableAttentionCore

SLOTS = 2  # previous BEV, current BEV


@MODELS.register_module()
class TemporalSelfAttention(BaseModule):
    """Temporal self-attention (paper section 3.4, equation (5)).

    TSA(Q_p, {Q, B'}) = sum over V in {Q, B'} of DeformAttn(Q_p, p, V).

    Offsets and weights are predicted from the previous BEV concatenated with the query. The outputs of the two slots,
    previous and current BEV, are averaged.

    Args:
        embed_dims: channels C.
        num_heads: attention heads.
        num_points: sampling points per head and slot.
        dropout: dropout of the output, before the residual is added.
        offsets_see_history: False predicts offsets and weights from the query alone, as deformable DETR and the
            paper's ablation do.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        num_points: int = 4,
        dropout: float = 0.1,
        offsets_see_history: bool = True,
    ) -> None:
        super().__init__()
        self.offsets_see_history = offsets_see_history
        self.attention = DeformableAttentionCore(
            embed_dims,
            num_heads,
            num_levels=1,
            num_points=num_points,
            num_slots=SLOTS,
            query_dims=(1 + offsets_see_history) * embed_dims,
        )
        self.output_proj = nn.Linear(embed_dims, embed_dims)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, query: Tensor, query_pos: Tensor, values: Tensor, reference_points: Tensor, spatial_shapes: Tensor
    ) -> Tensor:
        """Attend to the previous and the current BEV.

        Args:
            query: (B, Q, C).
            query_pos: (B, Q, C), added to the query that predicts offsets and weights, but not to the residual.
            values: (B, 2, Q, C), previous and current BEV; a sample without history holds ``query`` in both.
            reference_points: (B, 2, Q, 2) fractions of the grid; the previous slot's are shifted by the ego motion.
            spatial_shapes: (1, 2) integer (bev_h, bev_w).

        Returns:
            (B, Q, C).
        """
        predicting = query + query_pos
        if self.offsets_see_history:
            predicting = torch.cat([values[:, 0], predicting], dim=-1)  # BxQx2C
        offsets, weights = self.attention.predict_sampling(predicting)  # BxQxheadsx2x1xPx2
        # The slots are sampled as two levels, which the operator sums. The weights of each slot sum to one.
        projected = self.attention.project_value(values).flatten(1, 2)  # B x 2Q x heads x C/heads
        output = self.attention.sample(
            projected,
            spatial_shapes.expand(SLOTS, -1),
            reference_points.transpose(1, 2)[:, :, None, :, None],
            offsets.squeeze(4),
            weights.squeeze(4) / SLOTS,
        )  # BxQxC
        return query + self.dropout(self.output_proj(output))
