"""The attentions and deformable convolutions of a detector in a form whose shapes are known before it runs.

They compute what their originals compute, with the same weights, by ordinary operators of fixed shapes: no loop, no
list of a length that depends on values. Exporters need that.
"""

from dataclasses import dataclass

import torch
from mmcv.ops import ModulatedDeformConv2dPack
from torch import Tensor, nn
from torch.nn import functional as F

from bevformer_plugin.layers import DeformableAttentionCore, SpatialCrossAttention
from bevformer_plugin.ops import DeformConvSettings, convolve_whole_batch

Shape = tuple[int, int]


@dataclass(frozen=True)
class HitBudget:
    """How many hits a graph of fixed shapes has room for; a hit is a pair of a camera and a pillar that it sees.

    Attributes:
        hits: K, pillars that one camera sees.
        cameras: Cmax, cameras that see one pillar.
    """

    hits: int
    cameras: int


@dataclass(frozen=True)
class StaticHits:
    """The hits of one sample as :class:`bevformer_plugin.layers.PillarHits`, in tables of fixed shapes.

    Attributes:
        query_index: (N, K) int64, the query of each of a camera's hits; unused places hold a 0.
        reference_points: (N, K, D, 2) the pillars' projected points, fractions of the padded image.
        rows: (Cmax, Q) int64, where the hits of a query are among the N * K of all cameras; unused places hold N * K.
        num_cameras_seeing: (Q, 1) float, number of cameras that see a query, or 1 if none does.
        overflow: (2,) int64, hits and cameras beyond the budget: how many of the camera, and of the pillar, that has
            most. All of them are 0 where the tables hold every hit.
    """

    query_index: Tensor
    reference_points: Tensor
    rows: Tensor
    num_cameras_seeing: Tensor
    overflow: Tensor

    @classmethod
    def from_projection(cls, reference_points_cam: Tensor, visible: Tensor, budget: HitBudget) -> 'StaticHits':
        """Collect the hits of :func:`bevformer_plugin.geometry.project_to_cameras` for one sample.

        Args:
            reference_points_cam: (1, N, Q, D, 2).
            visible: (1, N, Q, D) bool.
            budget: room for hits.
        """
        hit = visible[0].any(-1)  # NxQ
        cameras, queries = hit.shape
        counted = hit.long()
        place = counted.cumsum(1) - 1  # of a hit among its camera's
        rank = counted.cumsum(0) - 1  # of a camera among those that see a query
        # Hits without room, and what is no hit, go to one more place at the end, which is then cut off.
        slot = torch.where(hit, place, budget.hits).clamp(max=budget.hits)
        queries_of_slots = torch.arange(queries).expand(cameras, -1)
        query_index = torch.zeros(cameras, budget.hits + 1, dtype=torch.int64).scatter(1, slot, queries_of_slots)
        query_index = query_index[:, : budget.hits]
        nowhere = cameras * budget.hits
        row = torch.where(slot < budget.hits, slot + torch.arange(cameras)[:, None] * budget.hits, nowhere)
        column = torch.where(hit, rank, budget.cameras).clamp(max=budget.cameras)
        rows = torch.full((budget.cameras + 1, queries), nowhere).scatter(0, column, row)[: budget.cameras]
        seeing = counted.sum(0)
        points = reference_points_cam[0].flatten(2)  # NxQx2D
        points = points.gather(1, query_index[:, :, None].expand(-1, -1, points.shape[-1]))
        beyond = [counted.sum(1).amax(0) - budget.hits, seeing.amax(0) - budget.cameras]
        return cls(
            query_index=query_index,
            reference_points=points.unflatten(2, (-1, 2)),
            rows=rows,
            num_cameras_seeing=seeing.clamp(min=1)[:, None].to(reference_points_cam.dtype),
            overflow=torch.stack(beyond).clamp(min=0),
        )

    def mean_over_cameras(self, values: Tensor) -> Tensor:
        """Average (N * K, C) values of hits over the cameras that see a query; (1, Q, C), zeros where none does."""
        with_zeros = torch.cat([values, torch.zeros(1, values.shape[1])])
        total = sum(with_zeros.index_select(0, rows) for rows in self.rows)
        return (total / self.num_cameras_seeing)[None]


def sample_by_grid(value: Tensor, shapes: list[Shape], locations: Tensor, weights: Tensor) -> Tensor:
    """Compute multi-scale deformable attention by ``grid_sample``, level by level.

    Args:
        value: (B, S, heads, C) with S the sum of h * w over the levels.
        shapes: (h, w) of each level.
        locations: (B, Q, heads, L, P, 2) in (x, y), fractions of the level's width and height.
        weights: (B, Q, heads, L, P).

    Returns:
        (B, Q, heads * C).
    """
    batch, _, heads, _ = value.shape
    # Queries are the last axis, so that products and sums over points run along contiguous rows. What lies beyond
    # these bounds is outside of every map, and far coordinates would overflow the integers of some runtimes.
    grids = (2 * locations.clamp(-1, 2) - 1).permute(0, 2, 3, 4, 1, 5).flatten(0, 1)  # (B*heads)xLxPxQx2
    shares = weights.permute(0, 2, 3, 4, 1).flatten(0, 1).unsqueeze(1)  # (B*heads)x1xLxPxQ
    levels = value.permute(0, 2, 3, 1).flatten(0, 1).split([h * w for h, w in shapes], dim=2)
    parts = []
    for level, (level_map, shape) in enumerate(zip(levels, shapes, strict=True)):
        maps = level_map.unflatten(2, shape)
        sampled = F.grid_sample(maps, grids[:, level], mode='bilinear', padding_mode='zeros', align_corners=False)
        parts.append((sampled * shares[:, :, level]).sum(2))  # (B*heads)xCxQ
    output = sum(parts[1:], start=parts[0])
    return output.unflatten(0, (batch, heads)).flatten(1, 2).transpose(1, 2)


class StaticAttentionCore(nn.Module):
    """Stands where a :class:`DeformableAttentionCore` was, and samples maps whose sizes are known.

    Args:
        core: whose weights it shares.
        shapes: (h, w) of each level of its maps.
    """

    cells: Tensor

    def __init__(self, core: DeformableAttentionCore, shapes: list[Shape]) -> None:
        super().__init__()
        self.core = core
        self.shapes = shapes
        cells = torch.tensor([[width, height] for height, width in shapes], dtype=torch.float32)
        self.register_buffer('cells', cells[:, None])  # Lx1x2

    def predict_sampling(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """Predict as :meth:`DeformableAttentionCore.predict_sampling`."""
        return self.core.predict_sampling(query)

    def project_value(self, value: Tensor) -> Tensor:
        """Project as :meth:`DeformableAttentionCore.project_value`."""
        return self.core.project_value(value)

    def sample(
        self, value: Tensor, spatial_shapes: Tensor, reference_points: Tensor, offsets: Tensor, weights: Tensor
    ) -> Tensor:
        """Sample as :meth:`DeformableAttentionCore.sample`; ``spatial_shapes`` are known already and not read."""
        return sample_by_grid(value, self.shapes, reference_points + offsets / self.cells, weights)


class StaticSpatialCrossAttention(nn.Module):
    """Stands where a :class:`SpatialCrossAttention` was, for one sample whose hits are in tables of fixed shapes.

    Args:
        attention: whose weights it shares.
        shapes: (h, w) of each feature level.
    """

    def __init__(self, attention: SpatialCrossAttention, shapes: list[Shape]) -> None:
        super().__init__()
        self.core = StaticAttentionCore(attention.deformable_attention, shapes)
        self.output_proj = attention.output_proj
        self.repeats = attention.deformable_attention.num_points // attention.num_heights

    def forward(self, query: Tensor, features: Tensor, spatial_shapes: Tensor, hits: StaticHits) -> Tensor:
        """Attend to the features of the cameras, as :meth:`SpatialCrossAttention.forward` with B = 1."""
        cameras, places = hits.query_index.shape
        every = hits.query_index.flatten()
        offsets, weights = (x[0].squeeze(2) for x in self.core.predict_sampling(query))  # QxheadsxLxPx2, QxheadsxLxP
        offsets = offsets.index_select(0, every).unflatten(0, (cameras, places))
        weights = weights.index_select(0, every).unflatten(0, (cameras, places))
        points = hits.reference_points.repeat(1, 1, self.repeats, 1)[:, :, None, None]  # NxKx1x1xPx2
        value = self.core.project_value(features[0])  # NxSxheadsxC/heads
        sampled = self.core.sample(value, spatial_shapes, points, offsets, weights)  # NxKxC
        return query + self.output_proj(hits.mean_over_cameras(sampled.flatten(0, 1)))


class StaticDeformConv(nn.Module):
    """Stands where a deformable convolution (DCNv2) was, and convolves all images at once by ordinary operators.

    Args:
        convolution: whose weights it shares.
    """

    def __init__(self, convolution: ModulatedDeformConv2dPack) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, images: Tensor) -> Tensor:
        """Convolve (B, C, H, W)."""
        pack = self.convolution
        offsets_y, offsets_x, mask = pack.conv_offset(images).chunk(3, dim=1)
        return convolve_whole_batch(
            images,
            torch.cat([offsets_y, offsets_x], dim=1),
            mask.sigmoid(),
            pack.weight,
            pack.bias,
            DeformConvSettings(pack.stride, pack.padding, pack.dilation, pack.groups, pack.deform_groups),
        )


def replace_deform_convs(module: nn.Module) -> None:
    """Put a :class:`StaticDeformConv` in the place of every deformable convolution of a module."""
    for name, child in module.named_children():
        if isinstance(child, ModulatedDeformConv2dPack):
            setattr(module, name, StaticDeformConv(child))
        else:
            replace_deform_convs(child)
