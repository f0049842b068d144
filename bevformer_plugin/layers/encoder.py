"""The BEV encoder: layers of TSA, SCA and a feed-forward network, each followed by a norm."""

from dataclasses import dataclass

import torch
from mmcv.cnn.bricks.transformer import FFN
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule, ModuleList
from torch import Tensor, nn

from bevformer_plugin.errors import InputError
from bevformer_plugin.geometry import BEVGrid, bev_reference_points
from bevformer_plugin.handed_down import with_handed_down

from .spatial_cross_attention import PillarHits
from .temporal_self_attention import TemporalSelfAttention


@dataclass(frozen=True)
class AlignedHistory:
    """The BEVs of a batch's previous frames, turned into the current frames' directions.

    Attributes:
        bev_embed: (B, Q, C); what it holds for a sample without history does not count.
        exists: (B,) bool, on the CPU: whether a sample has history; nothing else tells.
        shift: (B, 2) how far the vehicle moved, fractions of the grid, (x, y).
    """

    bev_embed: Tensor
    exists: Tensor
    shift: Tensor


@MODELS.register_module()
class BEVFormerEncoderLayer(BaseModule):
    """One layer of the encoder: TSA, norm, SCA, norm, FFN, norm (paper figure 2).

    Args:
        embed_dims: channels C.
        num_heads: attention heads of TSA and SCA.
        feedforward_channels: hidden channels of the FFN.
        num_levels: image feature levels.
        spatial_cross_attention: config of a form of SCA, without what is given here.
        tsa_num_points: sampling points per head and slot in TSA.
        num_points_in_pillar: reference heights in a pillar.
        dropout: after each attention and inside the FFN.
        offsets_see_history: of TSA.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        feedforward_channels: int,
        num_levels: int,
        spatial_cross_attention: dict,
        tsa_num_points: int = 4,
        num_points_in_pillar: int = 4,
        dropout: float = 0.1,
        offsets_see_history: bool = True,
    ) -> None:
        super().__init__()
        self.temporal_self_attention = TemporalSelfAttention(
            embed_dims, num_heads, tsa_num_points, dropout, offsets_see_history
        )
        handed_down = {
            'embed_dims': embed_dims,
            'num_heads': num_heads,
            'num_levels': num_levels,
            'num_heights': num_points_in_pillar,
            'dropout': dropout,
        }
        self.spatial_cross_attention = MODELS.build(
            with_handed_down(spatial_cross_attention, handed_down, 'spatial_cross_attention', 'the encoder layer')
        )
        self.ffn = FFN(embed_dims, feedforward_channels, ffn_drop=dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(embed_dims) for _ in range(3))

    def forward(
        self,
        query: Tensor,
        query_pos: Tensor,
        tsa_values: Tensor,
        tsa_reference_points: Tensor,
        bev_shape: Tensor,
        features: Tensor,
        spatial_shapes: Tensor,
        hits: PillarHits,
    ) -> Tensor:
        """Run the layer on (B, Q, C) queries; arguments as in the two attentions."""
        query = self.temporal_self_attention(query, query_pos, tsa_values, tsa_reference_points, bev_shape)
        query = self.norms[0](query)
        query = self.norms[1](self.spatial_cross_attention(query, features, spatial_shapes, hits))
        return self.norms[2](self.ffn(query))


@MODELS.register_module()
class BEVFormerEncoder(BaseModule):
    """Turns camera features and the previous BEV into the current BEV (paper section 3.1).

    Args: as :class:`BEVFormerEncoderLayer`, and
        num_layers: number of layers.
    """

    def __init__(
        self,
        num_layers: int,
        embed_dims: int,
        num_heads: int,
        feedforward_channels: int,
        num_levels: int,
        spatial_cross_attention: dict,
        tsa_num_points: int = 4,
        num_points_in_pillar: int = 4,
        dropout: float = 0.1,
        offsets_see_history: bool = True,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise InputError(f'num_layers of BEVFormerEncoder is at least 1, got {num_layers}')
        self.embed_dims = embed_dims
        self.num_levels = num_levels
        self.num_points_in_pillar = num_points_in_pillar
        self.layers = ModuleList(
            BEVFormerEncoderLayer(
                embed_dims,
                num_heads,
                feedforward_channels,
                num_levels,
                spatial_cross_attention,
                tsa_num_points,
                num_points_in_pillar,
                dropout,
                offsets_see_history,
            )
            for _ in range(num_layers)
        )

    def forward(
        self,
        bev_query: Tensor,
        bev_pos: Tensor,
        features: list[Tensor],
        hits: PillarHits,
        history: AlignedHistory,
        grid: BEVGrid,
    ) -> Tensor:
        """Encode one frame.

        Args:
            bev_query: (B, Q, C).
            bev_pos: (B, Q, C).
            features: per level (B, N, C, h, w), embeddings already added.
            hits: which cameras see which queries.
            history: the BEVs of the previous frames.
            grid: the BEV grid.

        Returns:
            (B, Q, C).

        Raises:
            InputError: if features, hits, queries, previous BEV and grid do not fit each other.
        """
        self._check_shapes(bev_query, features, hits, history, grid)
        # Kept on the CPU: reading it from a GPU would synchronise.
        spatial_shapes = torch.tensor([level.shape[-2:] for level in features])
        flat_features = torch.cat([level.flatten(3) for level in features], dim=-1).transpose(2, 3)  # BxNxSxC
        bev_shape = torch.tensor([[grid.bev_h, grid.bev_w]])

        current = bev_reference_points(grid, bev_query.device).expand(len(bev_query), -1, -1)  # BxQx2
        shift = torch.where(
            history.exists.view(-1, 1, 1).to(bev_query.device, non_blocking=True), history.shift[:, None], 0.0
        )
        tsa_reference_points = torch.stack([current + shift, current], dim=1)  # Bx2xQx2

        query, with_history = bev_query, self._with_history(bev_query, history)
        for layer in self.layers:
            values = self._slots(query, with_history, history.exists)
            query = layer(query, bev_pos, values, tsa_reference_points, bev_shape, flat_features, spatial_shapes, hits)
        return query

    @staticmethod
    def _with_history(bev_query: Tensor, history: AlignedHistory) -> Tensor | None:
        """Stack previous BEV and BEV query to (B, 2, Q, C), which all layers share; None if no sample has history."""
        return torch.stack([history.bev_embed, bev_query], dim=1) if history.exists.any() else None

    @staticmethod
    def _slots(query: Tensor, with_history: Tensor | None, exists: Tensor) -> Tensor:
        """Choose the (B, 2, Q, C) values of TSA; a sample without history has the layer's input in both slots."""
        without_history = query[:, None].expand(-1, 2, -1, -1)
        if with_history is None:
            return without_history
        if exists.all():
            return with_history
        return torch.where(exists.view(-1, 1, 1, 1).to(query.device, non_blocking=True), with_history, without_history)

    def _check_shapes(
        self, bev_query: Tensor, features: list[Tensor], hits: PillarHits, history: AlignedHistory, grid: BEVGrid
    ) -> None:
        """Refuse what would fail deep inside, or pair a camera with another camera's calibration."""
        if len(features) != self.num_levels:
            raise InputError(f'the encoder was built for {self.num_levels} feature levels, got {len(features)}')
        if bev_query.shape[1] != grid.num_queries:
            raise InputError(f'{bev_query.shape[1]} BEV queries do not fill a {grid.bev_h} x {grid.bev_w} grid')
        if history.bev_embed.shape != bev_query.shape:
            raise InputError(
                f'previous BEVs have shape {tuple(history.bev_embed.shape)}, the BEV queries {tuple(bev_query.shape)}'
            )
        expected = (*features[0].shape[:2], grid.num_queries, self.num_points_in_pillar)
        if hits.sizes != expected:
            raise InputError(
                f'the hits are of {hits.sizes} samples, cameras, queries, heights; features, grid and '
                f'encoder are of {expected}'
            )
