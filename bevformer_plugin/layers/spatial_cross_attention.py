"""Spatial cross-attention (SCA): every BEV query looks into the cameras that see its pillar.

There are three forms, which the paper's table 5 compares: attention around the pillar's projected points (deformable,
the paper's own), at these points only, and globally at every feature of every camera.
"""

from dataclasses import dataclass

import torch
from mmdet.models.layers import SinePositionalEncoding
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from bevformer_plugin.errors import InputError

from .attention_pooling import MultiHeadAttentionPooling
from .deformable_attention import DeformableAttentionCore


@dataclass(frozen=True)
class PillarHits:
    """The queries that each camera sees. They depend on the calibration alone and are the same for all layers.

    Attributes:
        query_index: (K,) ``b * Q + q`` of every hit, which is a pair of a camera and a query, ordered by sample, then
            camera.
        reference_points: (K, D, 2) the pillar's projected points, fractions of the padded image.
        lengths: (B * N,) int64, number of hits of each (sample, camera) pair; they sum to K.
        num_cameras_seeing: (B, Q, 1) float, number of cameras that see a query, or 1 if none does.
        by_query: (K,) indices of the hits, first those of the first query, then of the second, and so on.
        first_of_query: (B * Q,) position in ``by_query`` at which each query's hits begin.
    """

    query_index: Tensor
    reference_points: Tensor
    lengths: Tensor
    num_cameras_seeing: Tensor
    by_query: Tensor
    first_of_query: Tensor

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """The numbers of samples B, cameras N, queries Q and heights D."""
        samples, queries = self.num_cameras_seeing.shape[:2]
        return samples, len(self.lengths) // samples, queries, self.reference_points.shape[1]

    @classmethod
    def from_projection(cls, reference_points_cam: Tensor, visible: Tensor) -> 'PillarHits':
        """Collect the hits of :func:`bevformer_plugin.geometry.project_to_cameras`.

        A camera that sees any of a pillar's heights samples all of them.

        Args:
            reference_points_cam: (B, N, Q, D, 2).
            visible: (B, N, Q, D) bool.
        """
        hit = visible.any(-1)  # BxNxQ
        sample, camera, query = hit.nonzero(as_tuple=True)
        query_index = sample * hit.shape[2] + query
        num_cameras = hit.sum(1)  # BxQ
        return cls(
            query_index=query_index,
            reference_points=reference_points_cam[sample, camera, query],
            lengths=hit.sum(-1).flatten(),
            num_cameras_seeing=num_cameras.clamp(min=1).unsqueeze(-1).to(reference_points_cam.dtype),
            by_query=query_index.argsort(stable=True),
            first_of_query=num_cameras.flatten().cumsum(0) - num_cameras.flatten(),
        )

    def mean_over_cameras(self, values: Tensor) -> Tensor:
        """Average over the cameras that see a query.

        Args:
            values: (K, C), one row per hit.

        Returns:
            (B, Q, C); zeros for a query that no camera sees.
        """
        shares = (1 / self.num_cameras_seeing).flatten()[self.query_index][self.by_query].to(values.dtype)
        # This sums lists of any length, several times faster than adding hit by hit to the queries.
        means = F.embedding_bag(self.by_query, values, self.first_of_query, mode='sum', per_sample_weights=shares)
        return means.view(*self.num_cameras_seeing.shape[:2], -1)


@MODELS.register_module()
class SpatialCrossAttention(BaseModule):
    """Deformable spatial cross-attention, around the projected points (paper section 3.3, equation (2)).

    SCA(Q_p, F) = 1/|V_hit| sum over hit views i, heights j of DeformAttn(Q_p, P(p, i, j), F_i).

    Point k of ``num_points`` belongs to height ``k mod num_heights``. There is no output projection inside the
    deformable attention; it follows the sum over cameras.

    Args:
        embed_dims: channels C.
        num_heads: attention heads.
        num_levels: feature levels.
        num_points: sampling points per head and level, over all heights.
        num_heights: number of reference points in a pillar.
        dropout: dropout of the output, before the residual is added.

    Raises:
        InputError: if ``num_points`` is not a multiple of ``num_heights``.
    """

    learned_offsets = True

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        num_levels: int,
        num_points: int = 8,
        num_heights: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if num_points % num_heights:
            raise InputError(f'num_points={num_points} is not a multiple of the {num_heights} heights of a pillar')
        self.num_heights = num_heights
        self.deformable_attention = DeformableAttentionCore(
            embed_dims, num_heads, num_levels, num_points, learned_offsets=self.learned_offsets
        )
        self.output_proj = nn.Linear(embed_dims, embed_dims)
        self.dropout = nn.Dropout(dropout)

    def forward(self, query: Tensor, features: Tensor, spatial_shapes: Tensor, hits: PillarHits) -> Tensor:
        """Attend to the features of the cameras.

        Args:
            query: (B, Q, C), without position.
            features: (B, N, S, C), all levels of each camera.
            spatial_shapes: (L, 2) integer (h, w).
            hits: which cameras see which queries.

        Returns:
            (B, Q, C); a query that no camera sees gets the output projection's bias only.
        """
        reference_points, offsets, weights = self.predict_sampling(query, hits)
        attention = self.deformable_attention
        value = attention.project_value(features).flatten(0, 1)  # BN x S x heads x C/heads
        sampled = attention.sample_ragged(
            value, spatial_shapes, reference_points, offsets, weights, hits.lengths
        )  # KxC
        return query + self.dropout(self.output_proj(hits.mean_over_cameras(sampled)))

    def predict_sampling(self, query: Tensor, hits: PillarHits) -> tuple[Tensor, Tensor, Tensor]:
        """Predict where each hit samples its camera.

        Args:
            query: (B, Q, C), without position.
            hits: which cameras see which queries.

        Returns:
            (K, 1, 1, P, 2) reference points in fractions of the padded image, (K, heads, L, P, 2) offsets from them in
            cells of each level, both in (x, y), and (K, heads, L, P) weights, which sum to one over L * P.
        """
        predicted = self.deformable_attention.predict_sampling(query)
        offsets, weights = (x.squeeze(3).flatten(0, 1) for x in predicted)  # BQ x heads x L x P
        offsets = offsets.index_select(0, hits.query_index)  # KxheadsxLxPx2
        weights = weights.index_select(0, hits.query_index)  # KxheadsxLxP
        repeats = offsets.shape[3] // self.num_heights
        reference_points = hits.reference_points.repeat(1, repeats, 1)[:, None, None]  # Kx1x1xPx2
        return reference_points, offsets, weights


@MODELS.register_module()
class PointSpatialCrossAttention(SpatialCrossAttention):
    """Spatial cross-attention at points: cameras are sampled at the pillar's projected points and nowhere else.

    The query only decides the weight of each height, level and head. The arguments are those of
    :class:`SpatialCrossAttention`, with one point per height.
    """

    learned_offsets = False

    def __init__(
        self, embed_dims: int, num_heads: int, num_levels: int, num_heights: int = 4, dropout: float = 0.1
    ) -> None:
        super().__init__(embed_dims, num_heads, num_levels, num_heights, num_heights, dropout)


@MODELS.register_module()
class GlobalSpatialCrossAttention(BaseModule):
    """Global spatial cross-attention: every query attends to every feature of every camera and level.

    Keys are the features, which contain the embeddings of camera and level, plus a sine position within the map.

    Args:
        embed_dims: channels C.
        num_heads: attention heads.
        num_levels: feature levels; not used, since all features are keys.
        num_heights: number of reference points in a pillar; not used, since the calibration plays no part.
        dropout: dropout of the output, before the residual is added.
        score: config of the scoring function.
        score_dims: see :class:`MultiHeadAttentionPooling`.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        num_levels: int,
        num_heights: int = 4,
        dropout: float = 0.1,
        score: dict | None = None,
        score_dims: int | None = None,
    ) -> None:
        super().__init__()
        self.pooling = MultiHeadAttentionPooling(
            embed_dims, num_heads, score or dict(type='ScaledDotProduct'), score_dims
        )
        self.positional_encoding = SinePositionalEncoding(embed_dims // 2, normalize=True)
        self.dropout = nn.Dropout(dropout)

    def forward(self, query: Tensor, features: Tensor, spatial_shapes: Tensor, hits: PillarHits) -> Tensor:
        """Attend to all features; takes and returns what :class:`SpatialCrossAttention` does, and ignores ``hits``."""
        value = features.flatten(1, 2)  # BxNSxC
        key = (features + self._positions(spatial_shapes, features)).flatten(1, 2)
        return query + self.dropout(self.pooling(query, key, value))

    def _positions(self, spatial_shapes: Tensor, features: Tensor) -> Tensor:
        """Compute sine positions (S, C) within the map of each level."""
        positions = [
            self.positional_encoding(features.new_zeros(1, *shape))[0].flatten(1).T  # hwxC
            for shape in spatial_shapes.tolist()
        ]
        return torch.cat(positions).to(features.dtype)
