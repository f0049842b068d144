"""The deformable attention that temporal self-attention, spatial cross-attention and the decoder share."""

import math

import torch
from mmengine.model import constant_init, xavier_init
from torch import Tensor, nn

from bevformer_plugin.errors import InputError
from bevformer_plugin.ops import multi_scale_deformable_attention, ragged_deformable_attention

from .float32 import Float32Linear


class DeformableAttentionCore(nn.Module):
    """Predicts sampling points and their weights from a query, and samples there (Deformable DETR; paper equation 1).

    Several value slots share one projection, but each has its own offsets and its own softmax. Temporal self-attention
    has two slots, the previous and the current BEV.

    Args:
        embed_dims: channels C of values and output.
        num_heads: attention heads.
        num_levels: feature levels.
        num_points: sampling points per head and level.
        num_slots: value slots.
        query_dims: channels of the query; None takes ``embed_dims``.
        learned_offsets: False samples exactly at the reference points.

    Raises:
        InputError: if ``embed_dims`` is not divisible by ``num_heads``.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        num_levels: int,
        num_points: int,
        num_slots: int = 1,
        query_dims: int | None = None,
        learned_offsets: bool = True,
    ) -> None:
        super().__init__()
        if embed_dims % num_heads:
            raise InputError(f'embed_dims={embed_dims} is not divisible by num_heads={num_heads}')
        self.num_heads = num_heads
        self.num_levels = num_levels
        self.num_points = num_points
        self.num_slots = num_slots
        samples = num_heads * num_slots * num_levels * num_points
        self.sampling_offsets = Float32Linear(query_dims or embed_dims, samples * 2) if learned_offsets else None
        self.attention_weights = nn.Linear(query_dims or embed_dims, samples)
        self.value_proj = nn.Linear(embed_dims, embed_dims)
        self.init_weights()

    def init_weights(self) -> None:
        """Let head h look in direction h with point p at p + 1 cells' distance, and weight all points equally."""
        constant_init(self.attention_weights, 0.0)
        xavier_init(self.value_proj, distribution='uniform')
        if self.sampling_offsets is None:
            return
        constant_init(self.sampling_offsets, 0.0)
        angle = torch.arange(self.num_heads) * (2 * math.pi / self.num_heads)
        direction = torch.stack([angle.cos(), angle.sin()], dim=-1)
        direction = direction / direction.abs().max(dim=-1, keepdim=True).values
        distance = torch.arange(1, self.num_points + 1)
        grid = direction[:, None, None, :] * distance[None, None, :, None]  # heads x 1 x P x 2
        grid = grid.expand(-1, self.num_slots * self.num_levels, -1, -1)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(grid.flatten())

    def predict_sampling(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """Predict offsets in cells and normalised weights.

        Args:
            query: (B, Q, query_dims).

        Returns:
            (B, Q, heads, slots, L, P, 2) offsets in (x, y) and (B, Q, heads, slots, L, P) weights, which sum to one
            over the L * P samples of a slot.
        """
        sizes = (self.num_heads, self.num_slots, self.num_levels, self.num_points)
        weights = self.attention_weights(query).unflatten(-1, (*sizes[:2], -1)).softmax(-1).unflatten(-1, sizes[2:])
        if self.sampling_offsets is None:
            return torch.zeros(*weights.shape, 2, device=weights.device), weights
        offsets = self.sampling_offsets(query).unflatten(-1, (*sizes, 2))
        return offsets, weights

    def project_value(self, value: Tensor) -> Tensor:
        """Project values (..., S, C) to (..., S, heads, C / heads)."""
        return self.value_proj(value).unflatten(-1, (self.num_heads, -1))

    @staticmethod
    def sample(
        value: Tensor, spatial_shapes: Tensor, reference_points: Tensor, offsets: Tensor, weights: Tensor
    ) -> Tensor:
        """Sample one slot around its reference points.

        Args:
            value: (B, S, heads, C / heads), projected.
            spatial_shapes: (L, 2) integer (h, w).
            reference_points: (B, Q, 1 or heads, L or 1, P or 1, 2), fractions of the map.
            offsets: (B, Q, heads, L, P, 2) in cells.
            weights: (B, Q, heads, L, P).

        Returns:
            (B, Q, C).
        """
        locations = sampling_locations(spatial_shapes, reference_points, offsets)
        return multi_scale_deformable_attention(value, spatial_shapes, locations, weights)

    @staticmethod
    def sample_ragged(
        value: Tensor,
        spatial_shapes: Tensor,
        reference_points: Tensor,
        offsets: Tensor,
        weights: Tensor,
        lengths: Tensor,
    ) -> Tensor:
        """Sample maps that have different numbers of queries, whose lists follow one another in all arguments.

        Args:
            value: (M, S, heads, C / heads), projected.
            spatial_shapes: (L, 2) integer (h, w).
            reference_points: (R, 1 or heads, L or 1, P or 1, 2), fractions of the map.
            offsets: (R, heads, L, P, 2) in cells.
            weights: (R, heads, L, P).
            lengths: (M,) int64 that sum to R.

        Returns:
            (R, C).
        """
        locations = sampling_locations(spatial_shapes, reference_points, offsets)
        return ragged_deformable_attention(value, spatial_shapes, locations, weights, lengths)


def sampling_locations(spatial_shapes: Tensor, reference_points: Tensor, offsets: Tensor) -> Tensor:
    """Move reference points, which are fractions of each level, by offsets in cells.

    Args:
        spatial_shapes: (L, 2) integer (h, w).
        reference_points: (..., 1 or heads, L or 1, P or 1, 2) in (x, y).
        offsets: (..., heads, L, P, 2) in (x, y).

    Returns:
        (..., heads, L, P, 2), fractions of each level in (x, y).
    """
    cells = spatial_shapes.flip(-1)[:, None, :].to(offsets, non_blocking=True)  # Lx1x2 in (w, h)
    return torch.addcdiv(reference_points, offsets, cells)
