"""From a BEV to the logits of a map: a light convolutional decoder, and the paper's mask decoder.

Both take the BEV on the detector's grid and give logits on the grid of a map protocol, which may be finer, smaller and
in another frame: features or masks are read bilinearly at the centres of the protocol's cells.
"""

import math
from abc import abstractmethod

import torch
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule, bias_init_with_prob
from torch import Tensor, nn
from torch.nn import functional as F

from bevformer_plugin.errors import InputError
from bevformer_plugin.geometry import BEVGrid

PRIOR = 0.05  # probability that an untrained decoder gives every cell
GROUPS = 4  # of channels that are normalised together


class MapDecoder(BaseModule):
    """What a map head is built around.

    Args:
        embed_dims: channels C of the BEV; the head sets it.
        num_classes: channels K of the map; the head sets it.
        grid: the BEV grid; the head sets it.
        map_grid: the grid of the protocol; the head sets it.
    """

    def __init__(self, embed_dims: int, num_classes: int, grid: BEVGrid, map_grid: BEVGrid) -> None:
        super().__init__()
        self.embed_dims = embed_dims
        self.num_classes = num_classes
        self.grid = grid
        self.map_grid = map_grid

    @abstractmethod
    def forward(self, bev_embed: Tensor, places: Tensor) -> Tensor:
        """Decode a map.

        Args:
            bev_embed: (B, Q, C).
            places: (B, H, W, 2) where the cells of the map lie in the BEV, x and y from -1 to 1.

        Returns:
            (L, B, K, H, W) logits after each of L layers, the last of which is the prediction.
        """


def read_at(features: Tensor, places: Tensor) -> Tensor:
    """Read (B, C, h, w) features bilinearly at (B, H, W, 2) places, giving (B, C, H, W); outside lies 0.

    Places and result are float32 also under autocast, since half precision would move a cell by up to 0.2 m.
    """
    return F.grid_sample(features.float(), places.float(), align_corners=False)


@MODELS.register_module()
class ConvMapDecoder(MapDecoder):
    """A few convolutions, which first split a BEV cell into as many cells as the map has within it.

    Args: as :class:`MapDecoder`, and
        channels: of the convolution on the BEV grid.
        fine_channels: of the convolutions on the map's grid.

    Raises:
        InputError: the channels are not multiples of ``GROUPS``.
    """

    def __init__(
        self,
        embed_dims: int,
        num_classes: int,
        grid: BEVGrid,
        map_grid: BEVGrid,
        channels: int = 128,
        fine_channels: int = 32,
    ) -> None:
        super().__init__(embed_dims, num_classes, grid, map_grid)
        for name, number in (('channels', channels), ('fine_channels', fine_channels)):
            if number < 1 or number % GROUPS:
                raise InputError(f'{name} of ConvMapDecoder is a multiple of {GROUPS}, got {number}')
        coarseness = max(grid.cell_x / map_grid.cell_x, grid.cell_y / map_grid.cell_y)
        split = max(1, math.ceil(coarseness - 0.25))
        self.coarse = nn.Sequential(
            nn.Conv2d(embed_dims, channels, 3, padding=1, bias=False),
            nn.GroupNorm(GROUPS, channels),
            nn.ReLU(),
            nn.Conv2d(channels, fine_channels * split**2, 1),
            nn.PixelShuffle(split),
        )
        self.fine = nn.Sequential(
            nn.Conv2d(fine_channels, fine_channels, 3, padding=1, bias=False),
            nn.GroupNorm(GROUPS, fine_channels),
            nn.ReLU(),
            nn.Conv2d(fine_channels, num_classes, 1),
        )
        last = self.fine[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        nn.init.constant_(last.bias, bias_init_with_prob(PRIOR))

    def forward(self, bev_embed: Tensor, places: Tensor) -> Tensor:
        """Decode a map, see :class:`MapDecoder`, in one layer."""
        bev = bev_embed.transpose(1, 2).unflatten(2, (self.grid.bev_h, self.grid.bev_w))  # BxCxhxw
        return self.fine(read_at(self.coarse(bev), places))[None]


class MaskLayer(nn.Module):
    """Classes look at each other, then at the BEV; where each looks is its mask.

    Args:
        embed_dims: channels C.
        num_heads: heads of the attentions.
        dropout: of the attention among the classes.
    """

    def __init__(self, embed_dims: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.among_classes = nn.MultiheadAttention(embed_dims, num_heads, dropout, batch_first=True)
        self.norm = nn.LayerNorm(embed_dims)
        self.query = nn.Linear(embed_dims, embed_dims)
        self.key = nn.Linear(embed_dims, embed_dims)
        self.mask = nn.Sequential(nn.Linear(num_heads, num_heads), nn.ReLU(), nn.Linear(num_heads, 1))
        last = self.mask[-1]
        assert isinstance(last, nn.Linear)
        nn.init.constant_(last.bias, bias_init_with_prob(PRIOR))

    def forward(self, classes: Tensor, bev_embed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the masks of the classes.

        Args:
            classes: (B, K, C) queries.
            bev_embed: (B, Q, C).

        Returns:
            The queries (B, K, C) that looked, their attention (B, heads, K, Q) before the softmax, and the masks
            (B, K, Q) as logits.
        """
        classes = self.norm(classes + self.among_classes(classes, classes, classes, need_weights=False)[0])
        queries, keys = (
            states.unflatten(2, (self.num_heads, -1)).transpose(1, 2)  # Bxheadsx(K or Q)xC'
            for states in (self.query(classes), self.key(bev_embed))
        )
        attention = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(2, 3)
        return classes, attention, self.mask(attention.movedim(1, -1))[..., 0]


class ClassUpdate(nn.Module):
    """What the classes take from where they looked, before the next layer.

    Args:
        embed_dims: channels C.
        num_heads: heads of the attention.
        feedforward_channels: hidden channels of the FFN.
        dropout: of the FFN.
    """

    def __init__(self, embed_dims: int, num_heads: int, feedforward_channels: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.value = nn.Linear(embed_dims, embed_dims)
        self.output = nn.Linear(embed_dims, embed_dims)
        self.ffn = nn.Sequential(
            nn.Linear(embed_dims, feedforward_channels),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(feedforward_channels, embed_dims),
        )
        self.norms = nn.ModuleList(nn.LayerNorm(embed_dims) for _ in range(2))

    def forward(self, classes: Tensor, attention: Tensor, bev_embed: Tensor) -> Tensor:
        """Update (B, K, C) queries by their attention (B, heads, K, Q) to the (B, Q, C) BEV."""
        values = self.value(bev_embed).unflatten(2, (self.num_heads, -1)).transpose(1, 2)  # BxheadsxQxC'
        seen = (attention.softmax(dim=-1) @ values).transpose(1, 2).flatten(2)  # BxKxC
        classes = self.norms[0](classes + self.output(seen))
        return self.norms[1](classes + self.ffn(classes))


@MODELS.register_module()
class MaskMapDecoder(MapDecoder):
    """One learned query for each class; its attention over the BEV, before the softmax, becomes its mask.

    The paper's appendix A.3 names the mask decoder of Panoptic SegFormer (arXiv 2109.03814) with fixed classes. It
    does not say how many layers there are; the defaults here are our choice. Every layer is supervised.

    Args: as :class:`MapDecoder`, and
        num_layers: layers L.
        num_heads: heads of the attentions.
        feedforward_channels: hidden channels of every FFN.
        dropout: of every FFN and of the attention among the classes.

    Raises:
        InputError: the width is no multiple of the number of heads, or there are no layers.
    """

    def __init__(
        self,
        embed_dims: int,
        num_classes: int,
        grid: BEVGrid,
        map_grid: BEVGrid,
        num_layers: int = 4,
        num_heads: int = 8,
        feedforward_channels: int = 512,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(embed_dims, num_classes, grid, map_grid)
        if num_layers < 1:
            raise InputError(f'num_layers of MaskMapDecoder is a whole number from 1, got {num_layers}')
        if num_heads < 1 or embed_dims % num_heads:
            raise InputError(f'num_heads of MaskMapDecoder divides the width {embed_dims}, got {num_heads}')
        self.classes = nn.Embedding(num_classes, embed_dims)
        self.layers = nn.ModuleList(MaskLayer(embed_dims, num_heads, dropout) for _ in range(num_layers))
        # Nothing follows the last masks, so there is an update less than layers.
        self.updates = nn.ModuleList(
            ClassUpdate(embed_dims, num_heads, feedforward_channels, dropout) for _ in range(num_layers - 1)
        )

    def forward(self, bev_embed: Tensor, places: Tensor) -> Tensor:
        """Decode a map, see :class:`MapDecoder`."""
        classes = self.classes.weight.expand(len(bev_embed), -1, -1).to(bev_embed.dtype)
        masks = []
        for index, layer in enumerate(self.layers):
            classes, attention, mask = layer(classes, bev_embed)
            masks.append(read_at(mask.unflatten(2, (self.grid.bev_h, self.grid.bev_w)), places))
            if index < len(self.updates):
                classes = self.updates[index](classes, attention, bev_embed)
        return torch.stack(masks)
