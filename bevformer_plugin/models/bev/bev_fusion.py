"""One BEV from those of several frames (BEVFormer v2, arXiv 2211.10439, section 3.4)."""

from collections.abc import Sequence

import torch
from mmcv.cnn import build_norm_layer
from mmdet.models.backbones.resnet import BasicBlock
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from bevformer_plugin.errors import InputError
from bevformer_plugin.geometry import BEVGrid


@MODELS.register_module()
class BEVFusion(BaseModule):
    """Fuses the BEVs of several frames, all of them in the current LiDAR frame, by residual convolutions.

    1. The channels of all frames are laid side by side.
    2. Residual blocks of two 3x3 convolutions mix frames and neighbouring cells.
    3. A linear layer and a norm bring each cell back to the width of one BEV.

    Args:
        num_frames: frames K; the detector sets it.
        embed_dims: channels C of a BEV; the detector sets it.
        grid: the BEV grid; the detector sets it.
        inter_channels: channels of the blocks; None keeps those of all frames, K * C.
        num_blocks: residual blocks.
        norm_cfg: config of the norms in the blocks. A BEV is one image, so that batch norms are to be synchronised
            over processes.

    Raises:
        InputError: if there are fewer than two frames or no blocks.
    """

    def __init__(
        self,
        num_frames: int,
        embed_dims: int,
        grid: BEVGrid,
        norm_cfg: dict,
        inter_channels: int | None = None,
        num_blocks: int = 3,
    ) -> None:
        super().__init__()
        if num_frames < 2:
            raise InputError(f'BEVFusion is for two frames or more, got {num_frames}: leave bev_fusion out')
        if num_blocks < 1:
            raise InputError(f'num_blocks of BEVFusion is at least 1, got {num_blocks}')
        self.num_frames = num_frames
        self.grid = grid
        width = num_frames * embed_dims
        inter_channels = inter_channels or width
        self.layers = nn.Sequential(
            self._block(width, inter_channels, norm_cfg),
            *(self._block(inter_channels, inter_channels, norm_cfg) for _ in range(num_blocks - 1)),
        )
        self.projection = nn.Sequential(nn.Linear(inter_channels, embed_dims), nn.LayerNorm(embed_dims))

    @staticmethod
    def _block(in_channels: int, channels: int, norm_cfg: dict) -> BasicBlock:
        block = BasicBlock(in_channels, channels, norm_cfg=norm_cfg)
        if in_channels != channels:
            shortcut = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
            _, norm = build_norm_layer(norm_cfg, channels)
            block.downsample = nn.Sequential(shortcut, norm)
        return block

    def forward(self, bevs: Sequence[Tensor]) -> Tensor:
        """Fuse K tensors (B, Q, C), oldest first, into one (B, Q, C).

        Raises:
            InputError: if there are not K of them.
        """
        if len(bevs) != self.num_frames:
            raise InputError(f'BEVFusion was built for {self.num_frames} frames, got {len(bevs)}')
        side_by_side = torch.cat(list(bevs), dim=2).transpose(1, 2)  # BxKCxQ
        fused = self.layers(side_by_side.unflatten(2, (self.grid.bev_h, self.grid.bev_w)))
        return self.projection(fused.flatten(2).transpose(1, 2))
