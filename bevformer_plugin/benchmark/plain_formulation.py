"""BEVFormer's attentions as first written: grid_sample, loops over samples and cameras, lists padded to the longest.

What the plugin's own attentions are measured against. Weights are shared with the model that is measured.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bevformer_plugin.geometry import BEVGrid, bev_reference_points
from bevformer_plugin.layers import (
    AlignedHistory,
    BEVFormerEncoder,
    BEVFormerEncoderLayer,
    DeformableAttentionCore,
    PillarHits,
    SpatialCrossAttention,
    TemporalSelfAttention,
)


def sample_by_grid(value: Tensor, shapes: list[list[int]], locations: Tensor, weights: Tensor) -> Tensor:
    """Multi-scale deformable attention; shapes as of :func:`bevformer_plugin.ops.multi_scale_deformable_attention`."""
    batch, _, heads, channels = value.shape
    queries, points = locations.shape[1], locations.shape[4]
    sampled = []
    for level, (start, (height, width)) in enumerate(zip(_starts(shapes), shapes, strict=True)):
        maps = value[:, start : start + height * width].permute(0, 2, 3, 1).reshape(-1, channels, height, width)
        grid = 2 * locations[:, :, :, level].transpose(1, 2).flatten(0, 1) - 1  # (B*heads)xQxPx2
        sampled.append(F.grid_sample(maps, grid, mode='bilinear', padding_mode='zeros', align_corners=False))
    stacked = torch.stack(sampled, dim=-2).flatten(-2)  # (B*heads)xCxQx(L*P)
    shares = weights.transpose(1, 2).reshape(batch * heads, 1, queries, len(shapes) * points)
    return (stacked * shares).sum(-1).view(batch, heads * channels, queries).transpose(1, 2)


def _starts(shapes: list[list[int]]) -> list[int]:
    starts = [0]
    for height, width in shapes[:-1]:
        starts.append(starts[-1] + height * width)
    return starts


def _attend(
    core: DeformableAttentionCore,
    value: Tensor,
    shapes: list[list[int]],
    reference_points: Tensor,
    offsets: Tensor,
    weights: Tensor,
) -> Tensor:
    """Sample projected values around reference points (B, Q, 1, 1 or L, P or 1, 2)."""
    cells = offsets.new_tensor([[width, height] for height, width in shapes])[:, None]  # Lx1x2
    return sample_by_grid(core.project_value(value), shapes, reference_points + offsets / cells, weights)


def _temporal(
    attention: TemporalSelfAttention,
    query: Tensor,
    query_pos: Tensor,
    values: Tensor,
    reference_points: Tensor,
    shape: list[int],
) -> Tensor:
    """TSA, slot by slot."""
    seen = query + query_pos
    if attention.offsets_see_history:
        seen = torch.cat([values[:, 0], seen], dim=-1)
    offsets, weights = attention.attention.predict_sampling(seen)
    slots = [
        _attend(
            attention.attention,
            values[:, slot],
            [shape],
            reference_points[:, slot, :, None, None, None],
            offsets[:, :, :, slot],
            weights[:, :, :, slot],
        )
        for slot in range(values.shape[1])
    ]
    return query + attention.dropout(attention.output_proj(sum(slots) / len(slots)))


def _spatial(
    attention: SpatialCrossAttention, query: Tensor, features: Tensor, shapes: list[list[int]], hits: PillarHits
) -> Tensor:
    """SCA: every camera's queries copied into a list as long as the longest, then copied back."""
    core, (batch, cameras, length, heights) = attention.deformable_attention, hits.sizes
    lengths = hits.lengths.tolist()
    seen = (hits.query_index % length).split(lengths)  # (sample, camera) pairs
    seen_points = hits.reference_points.split(lengths)
    longest = max(1, *lengths)
    queries = query.new_zeros(batch, cameras, longest, query.shape[-1])
    points = hits.reference_points.new_zeros(batch, cameras, longest, heights, 2)
    for b in range(batch):
        for n in range(cameras):
            index = seen[b * cameras + n]
            queries[b, n, : len(index)] = query[b, index]
            points[b, n, : len(index)] = seen_points[b * cameras + n]
    offsets, weights = (x.squeeze(3) for x in core.predict_sampling(queries.flatten(0, 1)))
    points = points.flatten(0, 1).repeat(1, 1, core.num_points // attention.num_heights, 1)[:, :, None, None]
    sampled = _attend(core, features.flatten(0, 1), shapes, points, offsets, weights).unflatten(0, (batch, cameras))
    output = torch.zeros_like(query)
    for b in range(batch):
        for n in range(cameras):
            index = seen[b * cameras + n]
            output[b, index] += sampled[b, n, : len(index)]
    output = output / hits.num_cameras_seeing
    return query + attention.dropout(attention.output_proj(output))


class PlainEncoder(nn.Module):
    """An encoder's weights in the plain formulation; ``forward`` as of :class:`BEVFormerEncoder`."""

    def __init__(self, encoder: BEVFormerEncoder) -> None:
        super().__init__()
        self.layers = encoder.layers
        self.num_points_in_pillar = encoder.num_points_in_pillar

    def forward(
        self,
        bev_query: Tensor,
        bev_pos: Tensor,
        features: list[Tensor],
        hits: PillarHits,
        history: AlignedHistory,
        grid: BEVGrid,
    ) -> Tensor:
        """The BEV, (B, Q, C)."""
        shapes = [list(level.shape[-2:]) for level in features]
        flat = torch.cat([level.flatten(3) for level in features], dim=-1).transpose(2, 3)  # BxNxSxC
        current = bev_reference_points(grid, bev_query.device).expand(len(bev_query), -1, -1)
        exists = history.exists.view(-1, 1, 1).to(bev_query.device)
        shift = torch.where(exists, history.shift[:, None], 0.0)
        reference_points = torch.stack([current + shift, current], dim=1)
        query = bev_query
        for layer in self.layers:
            assert isinstance(layer, BEVFormerEncoderLayer)
            values = torch.stack([query, query], dim=1)
            if history.exists.any():
                values = torch.where(exists[:, None], torch.stack([history.bev_embed, bev_query], dim=1), values)
            query = self._layer(
                layer, query, bev_pos, values, reference_points, [grid.bev_h, grid.bev_w], flat, shapes, hits
            )
        return query

    @staticmethod
    def _layer(
        layer: BEVFormerEncoderLayer,
        query: Tensor,
        bev_pos: Tensor,
        values: Tensor,
        reference_points: Tensor,
        bev_shape: list[int],
        features: Tensor,
        shapes: list[list[int]],
        hits: PillarHits,
    ) -> Tensor:
        query = _temporal(layer.temporal_self_attention, query, bev_pos, values, reference_points, bev_shape)
        query = layer.norms[0](query)
        query = _spatial(layer.spatial_cross_attention, query, features, shapes, hits)
        return layer.norms[2](layer.ffn(layer.norms[1](query)))
