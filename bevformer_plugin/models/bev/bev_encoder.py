"""From camera features, frames and histories to the BEV (paper figure 2, left and middle)."""

from collections.abc import Sequence

import torch
from mmdet.models.layers import LearnedPositionalEncoding
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from bevformer_plugin.errors import InputError
from bevformer_plugin.geometry import BEVGrid, PlanarMotion, pillar_points, project_to_cameras
from bevformer_plugin.handed_down import with_handed_down
from bevformer_plugin.layers import PillarHits, init_transformer_weights

from .camera_features import CameraFeatures
from .ego_alignment import MOTION_CHANNELS, EgoAlignment
from .frames import BEVHistory, Frame


@MODELS.register_module()
class BEVEncoder(BaseModule):
    """Builds the BEV from learned queries that look at the previous BEV and into the cameras.

    Args:
        encoder: config of the encoder's layers, :class:`bevformer_plugin.layers.BEVFormerEncoder`, without what is
            given here.
        grid: the BEV grid; the detector sets it.
        embed_dims: channels C; the detector sets it.
        num_cameras: camera views, one learned embedding each; the detector sets it.
        num_levels: feature levels that come from the neck; the detector sets it.
        encoded_levels: how many of them, from the finest on, the BEV looks at; None looks at all. BEVFormerV2's
            coarsest level is for its perspective head alone.
        ego_motion: see :meth:`EgoAlignment.from_config`; the detector sets it.
        num_heads: heads of every attention.
        feedforward_channels: hidden channels of every FFN.
        dropout: of every attention and FFN.
        num_feature_levels: learned level embeddings, at least as many as levels are looked at; the published models
            always hold four.
        motion_embedding: add what is known of the vehicle's motion to the BEV queries, as BEVFormer does; BEVFormerV2
            does without.
        bev_embedding_std: spread of the initial BEV queries. 1 as published; what a small model sees of the images
            drowns in it for its first thousand steps.
        positional_encoding_init: MMEngine's ``init_cfg`` of the initial BEV positions; None draws them from a
            standard normal distribution, as published.

    Raises:
        InputError: if there are fewer level embeddings than levels, fewer levels than are to be looked at, an odd
            number of channels, or the encoder sets what is given here.
    """

    def __init__(
        self,
        encoder: dict,
        grid: BEVGrid,
        embed_dims: int,
        num_cameras: int,
        num_levels: int,
        ego_motion: dict | None = None,
        encoded_levels: int | None = None,
        num_heads: int = 8,
        feedforward_channels: int = 512,
        dropout: float = 0.1,
        num_feature_levels: int | None = None,
        bev_embedding_std: float = 1.0,
        positional_encoding_init: dict | None = None,
        motion_embedding: bool = True,
    ) -> None:
        super().__init__()
        if encoded_levels is not None and not 1 <= encoded_levels <= num_levels:
            raise InputError(f'encoded_levels={encoded_levels} is not from 1 to the {num_levels} levels of the neck')
        num_levels = num_levels if encoded_levels is None else encoded_levels
        num_feature_levels = num_levels if num_feature_levels is None else num_feature_levels
        if num_feature_levels < num_levels:
            raise InputError(f"num_feature_levels={num_feature_levels} is less than the neck's {num_levels} levels")
        if embed_dims % 2:
            raise InputError(
                f'the width of the BEV is even, half of it for rows and half for columns, got {embed_dims}: set '
                'model.img_neck.out_channels'
            )
        self.num_levels = num_levels
        self.grid = grid
        self.ego_alignment = EgoAlignment.from_config(ego_motion)
        self.bev_embedding = nn.Embedding(grid.num_queries, embed_dims)
        nn.init.normal_(self.bev_embedding.weight, std=bev_embedding_std)
        self.positional_encoding = LearnedPositionalEncoding(
            embed_dims // 2,
            grid.bev_h,
            grid.bev_w,
            init_cfg=positional_encoding_init,  # pyright: ignore[reportArgumentType]  # MMEngine takes None as well
        )
        self.level_embeds = nn.Parameter(torch.randn(num_feature_levels, embed_dims))
        self.cams_embeds = nn.Parameter(torch.randn(num_cameras, embed_dims))
        self.can_bus_mlp = (
            nn.Sequential(
                nn.Linear(MOTION_CHANNELS, embed_dims // 2),
                nn.ReLU(),
                nn.Linear(embed_dims // 2, embed_dims),
                nn.ReLU(),
                nn.LayerNorm(embed_dims),
            )
            if motion_embedding
            else None
        )
        handed_down = {
            'embed_dims': embed_dims,
            'num_heads': num_heads,
            'feedforward_channels': feedforward_channels,
            'dropout': dropout,
            'num_levels': num_levels,
        }
        self.encoder = MODELS.build(with_handed_down(encoder, handed_down, 'bev_encoder.encoder', 'bev_encoder'))

    def init_weights(self) -> None:
        """Initialise with :func:`init_transformer_weights`, as published; the embeddings stay as they are."""
        super().init_weights()
        init_transformer_weights(self)

    def forward(
        self,
        features: CameraFeatures,
        frames: Sequence[Frame],
        histories: Sequence[BEVHistory | None],
        hits: PillarHits | None = None,
    ) -> Tensor:
        """Build the BEV of one frame of every sample.

        Args:
            features: of the samples' cameras.
            frames: per sample.
            histories: per sample what its previous frame left behind; None where nothing does.
            hits: what :meth:`hits` gives for these frames, where it is known already.

        Returns:
            (B, Q, C).
        """
        motion = self.ego_alignment.motion(frames, histories)
        history = self.ego_alignment.aligned(histories, motion, self.grid, self.bev_embedding.weight)
        bev_query = self._queries(frames, motion)
        bev_pos = self.positions().expand(len(frames), -1, -1)
        levels = [
            level + self.cams_embeds[:, :, None, None] + self.level_embeds[index][:, None, None]
            for index, level in enumerate(features.levels[: self.num_levels])
        ]
        hits = self.hits(frames, features.image_hw) if hits is None else hits
        return self.encoder(bev_query, bev_pos, levels, hits, history, self.grid)

    def hits(self, frames: Sequence[Frame], image_hw: tuple[int, int]) -> PillarHits:
        """Find which cameras see which pillars (paper section 3.3, equation 4).

        Args:
            frames: per sample.
            image_hw: padded image size in pixels.
        """
        device = self.bev_embedding.weight.device
        lidar2img = torch.stack([frame.lidar2img for frame in frames]).to(device, torch.float32, non_blocking=True)
        points = pillar_points(self.grid, self.encoder.num_points_in_pillar, device)
        return PillarHits.from_projection(*project_to_cameras(points, lidar2img, image_hw))

    def _queries(self, frames: Sequence[Frame], motion: PlanarMotion) -> Tensor:
        """Return the (B, Q, C) learned queries, with what is known of each vehicle's motion added."""
        queries = self.bev_embedding.weight
        if self.can_bus_mlp is None:
            return queries.expand(len(frames), -1, -1)
        motion_vector = self.ego_alignment.motion_vector(frames, motion).to(queries, non_blocking=True)  # Bx18
        return queries + self.can_bus_mlp(motion_vector)[:, None]  # QxC, Bx1xC -> BxQxC

    def positions(self) -> Tensor:
        """Return the (Q, C) learned positions of all cells."""
        empty_mask = self.bev_embedding.weight.new_zeros(1, self.grid.bev_h, self.grid.bev_w)
        return self.positional_encoding(empty_mask)[0].flatten(1).T  # 1xCxHxW -> QxC
