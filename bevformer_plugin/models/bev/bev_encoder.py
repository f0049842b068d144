"""BEVFormer's transformer: embeddings, ego motion, encoder and decoder around one BEV."""

import torch
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule, xavier_init
from torch import Tensor, nn

from bevformer_plugin.errors import InputError
from bevformer_plugin.geometry import BEVGrid, pillar_points, project_to_cameras
from bevformer_plugin.handed_down import with_handed_down
from bevformer_plugin.layers import DeformableAttentionCore, Float32Linear, PillarHits

from .ego_alignment import EgoAlignment

CAN_BUS_CHANNELS = 18


@MODELS.register_module()
class BEVFormerTransformer(BaseModule):
    """Camera features and the previous BEV to the current BEV, and the BEV to decoded object queries (paper figure 2).

    Args:
        encoder: config of the BEV encoder, without what is given here.
        decoder: config of the detection decoder, without what is given here.
        num_cameras: camera views; one learned embedding each.
        num_levels: feature levels that come from the neck.
        embed_dims: channels C.
        num_heads: heads of every attention.
        feedforward_channels: hidden channels of every FFN.
        dropout: of every attention and FFN.
        ego_motion: see :meth:`EgoAlignment.from_config`.
        num_feature_levels: learned level embeddings, at least ``num_levels``; the published models always hold four.
        learned_reference_points: predict the decoder's first reference points from the queries' positions.

    Raises:
        InputError: if there are fewer level embeddings than levels.
    """

    def __init__(
        self,
        encoder: dict,
        decoder: dict,
        num_cameras: int,
        num_levels: int,
        embed_dims: int = 256,
        num_heads: int = 8,
        feedforward_channels: int = 512,
        dropout: float = 0.1,
        ego_motion: dict | None = None,
        num_feature_levels: int | None = None,
        learned_reference_points: bool = True,
    ) -> None:
        super().__init__()
        num_feature_levels = num_levels if num_feature_levels is None else num_feature_levels
        if num_feature_levels < num_levels:
            raise InputError(f"num_feature_levels={num_feature_levels} is less than the neck's {num_levels} levels")
        shared = {
            'embed_dims': embed_dims,
            'num_heads': num_heads,
            'feedforward_channels': feedforward_channels,
            'dropout': dropout,
        }
        self.encoder = MODELS.build(
            with_handed_down(encoder, {**shared, 'num_levels': num_levels}, 'transformer.encoder', 'the transformer')
        )
        self.decoder = MODELS.build(with_handed_down(decoder, shared, 'transformer.decoder', 'the transformer'))
        self.ego_alignment = EgoAlignment.from_config(ego_motion)
        self.level_embeds = nn.Parameter(torch.randn(num_feature_levels, embed_dims))
        self.cams_embeds = nn.Parameter(torch.randn(num_cameras, embed_dims))
        self.reference_points = Float32Linear(embed_dims, 3) if learned_reference_points else None
        self.can_bus_mlp = nn.Sequential(
            nn.Linear(CAN_BUS_CHANNELS, embed_dims // 2),
            nn.ReLU(),
            nn.Linear(embed_dims // 2, embed_dims),
            nn.ReLU(),
            nn.LayerNorm(embed_dims),
        )
        self._last_rig: tuple[Tensor, tuple[int, int], BEVGrid] | None = None
        self._last_hits: PillarHits | None = None

    def init_weights(self) -> None:
        """Xavier for every matrix, a standard normal for the embeddings; deformable attention initialises itself."""
        super().init_weights()
        for module in self.modules():
            if isinstance(module, nn.Linear):
                xavier_init(module, distribution='uniform')
            elif isinstance(module, nn.MultiheadAttention):
                nn.init.xavier_uniform_(module.in_proj_weight)
        for module in self.modules():
            if isinstance(module, DeformableAttentionCore):
                module.init_weights()

    def encode(
        self,
        features: list[Tensor],
        bev_query: Tensor,
        bev_pos: Tensor,
        lidar2img: Tensor,
        image_hw: tuple[int, int],
        can_bus: Tensor,
        prev_bev: Tensor | None,
        has_history: Tensor,
        grid: BEVGrid,
    ) -> Tensor:
        """Build the current BEV.

        Args:
            features: per level (B, N, C, h, w).
            bev_query: (Q, C) learned queries.
            bev_pos: (Q, C) learned positions.
            lidar2img: (B, N, 4, 4) LiDAR metres to pixels.
            image_hw: padded image size in pixels.
            can_bus: (B, 18) float64, relative to each sample's previous frame.
            prev_bev: (B, Q, C) as it was in the previous frame, or None when no sample has history.
            has_history: (B,) bool, on the CPU.
            grid: the BEV grid.

        Returns:
            (B, Q, C).
        """
        batch_size = len(can_bus)
        features = [
            level + self.cams_embeds[:, :, None, None] + self.level_embeds[index][:, None, None]
            for index, level in enumerate(features)
        ]

        shift = torch.zeros(batch_size, 2, device=bev_query.device)
        if prev_bev is not None:
            prev_bev, shift = self.ego_alignment.align(prev_bev, can_bus, grid)
        motion = self.ego_alignment.visible_channels(can_bus).to(bev_query)
        bev_query = bev_query + self.can_bus_mlp(motion)[:, None]  # QxC, Bx1xC -> BxQxC
        bev_pos = bev_pos.expand(batch_size, -1, -1)
        hits = self._hits(lidar2img, image_hw, grid)
        return self.encoder(bev_query, bev_pos, features, hits, prev_bev, has_history, shift, grid)

    def _hits(self, lidar2img: Tensor, image_hw: tuple[int, int], grid: BEVGrid) -> PillarHits:
        """Which cameras see which pillars; those of the last frame while the rig is unchanged."""
        if self._last_hits is None or not self._is_last_rig(lidar2img, image_hw, grid):
            points = pillar_points(grid, self.encoder.num_points_in_pillar, lidar2img.device)
            self._last_hits = PillarHits.from_projection(*project_to_cameras(points, lidar2img, image_hw))
            self._last_rig = lidar2img.clone(), image_hw, grid
        return self._last_hits

    def _is_last_rig(self, lidar2img: Tensor, image_hw: tuple[int, int], grid: BEVGrid) -> bool:
        last, *rest = self._last_rig
        # What inference mode has made cannot be kept for a backward pass.
        usable = torch.is_inference_mode_enabled() or not self._last_hits.query_index.is_inference()
        return usable and rest == [image_hw, grid] and last.device == lidar2img.device and torch.equal(last, lidar2img)

    def decode(
        self,
        bev_embed: Tensor,
        query: Tensor,
        query_pos: Tensor,
        reference_points: Tensor | None,
        grid: BEVGrid,
        reg_branches: nn.ModuleList | None,
    ) -> tuple[Tensor, Tensor]:
        """Decode the object queries.

        Args:
            bev_embed: (B, Q, C).
            query: (B, M, C) content.
            query_pos: (B, M, C) position.
            reference_points: (B, M, 3) fractions of the range; None predicts them from ``query_pos``.
            grid: the BEV grid.
            reg_branches: refine the reference points between layers; None keeps them.

        Returns:
            states (L, B, M, C) and references (L + 1, B, M, 3), references[l] being what layer l used.
        """
        if reference_points is None:
            reference_points = self.reference_points(query_pos).sigmoid()
        return self.decoder(query, query_pos, bev_embed, reference_points, (grid.bev_h, grid.bev_w), reg_branches)
