"""A detector as one function of tensors of fixed shapes: a frame in, BEV, boxes and map out, all state explicit."""

import math
from copy import deepcopy
from typing import NamedTuple

import torch
from mmcv.cnn import fuse_conv_bn
from torch import Tensor, nn
from torch.nn import functional as F

from bevformer_plugin.errors import InputError
from bevformer_plugin.geometry import (
    BEVGrid,
    bev_reference_points,
    pillar_points,
    project_to_cameras,
    rotation_center,
    sample_rotated,
)
from bevformer_plugin.layers import BEVFormerEncoderLayer, SpatialCrossAttention
from bevformer_plugin.models import BEVFormer, BEVFormerDataPreprocessor, DetectionOutputs, EgoAlignment

from .heads import heads_of
from .static_attention import (
    HitBudget,
    Shape,
    StaticAttentionCore,
    StaticHits,
    StaticSpatialCrossAttention,
    replace_deform_convs,
)

HEADING, TURN = 16, 17  # places in the motion vector; the translation comes first
DEGREE = math.pi / 180


class StaticEgoAlignment(nn.Module):
    """Computes in float32, from the motion vector alone, what :class:`EgoAlignment` computes from poses in float64.

    Args:
        alignment: whose settings it takes.
        grid: the BEV grid.
    """

    visible: Tensor

    def __init__(self, alignment: EgoAlignment, grid: BEVGrid) -> None:
        super().__init__()
        self.alignment = alignment
        self.grid = grid
        channels = range(TURN + 1) if alignment.can_bus_channels is None else alignment.can_bus_channels
        self.register_buffer('visible', torch.zeros(TURN + 1).index_fill(0, torch.tensor([*channels]).long(), 1.0))

    def moved(self, motion: Tensor, exists: Tensor) -> Tensor:
        """Complete a motion vector: a frame without history has not moved, and a turn is wrapped if the model's are.

        Args:
            motion: (18,) translation since the previous frame (metres, global frame), CAN-bus values, heading
                (radians), turn since the previous frame (degrees).
            exists: (1,) 1 or 0, whether there is a previous frame.

        Returns:
            (18,).
        """
        turn = _wrapped(motion[TURN:]) if self.alignment.wrap_heading else motion[TURN:]
        return torch.cat([motion[:3] * exists, motion[3:TURN], turn * exists])

    def motion_vector(self, moved: Tensor) -> Tensor:
        """Return what the network sees of the (18,) motion, as :meth:`EgoAlignment.motion_vector`."""
        if self.alignment.quaternion_repeats_w:
            moved = torch.cat([moved[:3], moved[3:4].expand(4), moved[7:]])
        return moved if self.alignment.can_bus_channels is None else moved * self.visible

    def align(self, prev_bev: Tensor, moved: Tensor) -> tuple[Tensor, Tensor]:
        """Turn a previous BEV (1, Q, C), and tell the shift (1, 2), as :meth:`EgoAlignment.align`."""
        if not self.alignment.align_history:
            return prev_bev, torch.zeros(1, 2)
        grid = self.grid
        # The heading's difference from the translation's direction is a scalar and a cross product with it.
        cos, sin = moved[HEADING].cos(), moved[HEADING].sin()
        forward, aside = moved[0] * cos + moved[1] * sin, moved[0] * sin - moved[1] * cos
        shift = torch.stack([aside / grid.cell_x / grid.bev_w, forward / grid.cell_y / grid.bev_h])[None]
        return self._turned(prev_bev, moved[TURN:]), shift

    def _turned(self, prev_bev: Tensor, turn: Tensor) -> Tensor:
        """Turn (1, Q, C) by (1,) degrees as :func:`bevformer_plugin.geometry.rotate_bev`.

        One minus the cosine of a small angle comes from the sine of its half, because float32 has few digits near 1.
        """
        half = _wrapped(turn) * (-DEGREE / 2)
        versine = 2 * half.sin() * half.sin()
        cos, sin = 1 - versine, 2 * half.sin() * half.cos()
        offset_x, offset_y, oblong = rotation_center(self.grid, self.alignment.rotate_center)
        sin_xy, sin_yx = sin * oblong, sin / oblong
        shift_x = versine * offset_x - sin_xy * offset_y
        shift_y = versine * offset_y + sin_yx * offset_x
        interpolation = self.alignment.rotate_interpolation
        return sample_rotated(prev_bev, cos, (sin_xy, sin_yx), (shift_x, shift_y), self.grid, interpolation)


def _wrapped(turn: Tensor) -> Tensor:
    """Bring degrees from (-360, 360) into [-180, 180), without rounding."""
    return turn - 360 * (turn >= 180).float() + 360 * (turn < -180).float()


class ImagePreparation(nn.Module):
    """Normalises and pads images as they come from a camera, as the detector's data preprocessor does.

    Args:
        preprocessor: of the detector.
        image_hw: height and width of the images.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, preprocessor: BEVFormerDataPreprocessor, image_hw: Shape) -> None:
        super().__init__()
        self.bgr_to_rgb = bool(preprocessor._channel_conversion)
        self.register_buffer('mean', preprocessor.mean.detach().clone())
        self.register_buffer('std', preprocessor.std.detach().clone())
        padded = padded_hw(preprocessor, image_hw)
        self.padding = (0, padded[1] - image_hw[1], 0, padded[0] - image_hw[0])

    def forward(self, images: Tensor) -> Tensor:
        """Prepare (N, H, W, 3) uint8 in the order blue, green, red, giving (1, N, 3, Hp, Wp) float32."""
        planes = images.float().permute(0, 3, 1, 2)
        if self.bgr_to_rgb:
            planes = planes.flip(1)
        return F.pad((planes - self.mean) / self.std, self.padding)[None]


def padded_hw(preprocessor: BEVFormerDataPreprocessor, image_hw: Shape) -> Shape:
    """Compute the height and width to which the preprocessor pads images."""
    divisor = preprocessor.pad_size_divisor
    return -(-image_hw[0] // divisor) * divisor, -(-image_hw[1] // divisor) * divisor


class StaticOutputs(NamedTuple):
    """What a :class:`StaticDetector` gives for a frame.

    Attributes:
        bev: (1, Q, C).
        detections: scores and boxes; None of a detector without boxes.
        map: (classes, rows, columns) probabilities; None of a detector without a map.
        overflow: of :class:`StaticHits`.
    """

    bev: Tensor
    detections: DetectionOutputs | None
    map: Tensor | None
    overflow: Tensor


class StaticDetector(nn.Module):
    """The copy of a detector that predicts in one frame of one size, by tensors of fixed shapes.

    Args:
        detector: with a detection head, a map head or both, and deformable spatial cross-attention; it stays as it is.
        image_hw: padded height and width of its images in pixels.
        budget: room for hits of cameras and pillars.

    Raises:
        InputError: if a part of the detector has no static form.
    """

    positions: Tensor
    pillars: Tensor
    cells: Tensor

    def __init__(self, detector: BEVFormer, image_hw: Shape, budget: HitBudget) -> None:
        super().__init__()
        _require_static_form(detector)
        detector.reset_streams()
        self.detector = deepcopy(detector)
        self.detector.cpu().float().eval().requires_grad_(False)
        self.detector.img_backbone = fuse_conv_bn(self.detector.img_backbone)
        self.detector.img_neck = fuse_conv_bn(self.detector.img_neck)
        replace_deform_convs(self.detector.img_backbone)
        self.detector.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]  # torch's own form
        self.image_hw = image_hw
        self.budget = budget
        encoder = self.detector.bev_encoder
        self.grid = encoder.grid
        self.alignment = StaticEgoAlignment(encoder.ego_alignment, self.grid)
        self.level_shapes = self._level_shapes()
        bev_shape = (self.grid.bev_h, self.grid.bev_w)
        for layer in encoder.encoder.layers:
            temporal = layer.temporal_self_attention
            temporal.attention = StaticAttentionCore(temporal.attention, [bev_shape] * 2)
            layer.spatial_cross_attention = StaticSpatialCrossAttention(
                layer.spatial_cross_attention, self.level_shapes
            )
        self.detection_head, self.map_head = heads_of(self.detector)
        for layer in () if self.detection_head is None else self.detection_head.decoder.layers:
            layer.cross_attention = StaticAttentionCore(layer.cross_attention, [bev_shape])
        self.register_buffer('positions', encoder.positions().detach().clone())
        self.register_buffer('pillars', pillar_points(self.grid, encoder.encoder.num_points_in_pillar))
        self.register_buffer('cells', bev_reference_points(self.grid)[None])

    def _level_shapes(self) -> list[Shape]:
        """Find the (h, w) of the neck's levels without computing any."""
        parts = nn.ModuleList([self.detector.img_backbone, self.detector.img_neck])
        backbone, neck = deepcopy(parts).to('meta')
        levels = neck(backbone(torch.empty(1, 3, *self.image_hw, device='meta')))
        return [(level.shape[-2], level.shape[-1]) for level in levels]

    def forward(
        self,
        imgs: Tensor,
        prev_bev: Tensor,
        exists: Tensor,
        motion: Tensor,
        lidar2img: Tensor,
        map_to_lidar: Tensor | None = None,
    ) -> StaticOutputs:
        """Predict in one frame.

        Args:
            imgs: (1, N, 3, H, W) normalised and padded.
            prev_bev: (1, Q, C) BEV of the previous frame, of any values where there is none.
            exists: (1,) 1 or 0, whether there is a previous frame.
            motion: (18,), see :meth:`StaticEgoAlignment.moved`.
            lidar2img: (1, N, 4, 4).
            map_to_lidar: (1, 2, 3), see :func:`bevformer_plugin.models.map_to_lidar`; only maps in the frame of the
                vehicle need it.
        """
        encoder = self.detector.bev_encoder
        levels = [
            level + encoder.cams_embeds[:, :, None, None] + encoder.level_embeds[index][:, None, None]
            for index, level in enumerate(self.detector.extract_feat(imgs))
        ]
        features = torch.cat([level.flatten(3) for level in levels], dim=-1).transpose(2, 3)  # 1xNxSxC
        moved = self.alignment.moved(motion, exists)
        bev_query = (encoder.bev_embedding.weight + encoder.can_bus_mlp(self.alignment.motion_vector(moved)))[None]
        hits = StaticHits.from_projection(*project_to_cameras(self.pillars, lidar2img, self.image_hw), self.budget)
        bev_embed = self._encode(bev_query, features, hits, prev_bev, moved, exists > 0)
        detections = None if self.detection_head is None else self.detection_head(bev_embed)
        return StaticOutputs(bev_embed, detections, self._map(bev_embed, map_to_lidar), hits.overflow)

    def _map(self, bev_embed: Tensor, map_to_lidar: Tensor | None) -> Tensor | None:
        """Compute the probabilities of the map as :meth:`bevformer_plugin.models.MapHead.predict`."""
        if self.map_head is None:
            return None
        places = self.map_head.places[None] if map_to_lidar is None else self.map_head.places_in(map_to_lidar)
        return self.map_head.decoder(bev_embed, places)[-1, 0].sigmoid()

    def _encode(
        self, bev_query: Tensor, features: Tensor, hits: StaticHits, prev_bev: Tensor, moved: Tensor, exists: Tensor
    ) -> Tensor:
        """Run the layers as :meth:`bevformer_plugin.layers.BEVFormerEncoder.forward`."""
        turned, shift = self.alignment.align(prev_bev, moved)
        references = torch.stack([self.cells + torch.where(exists, shift, 0.0), self.cells], dim=1)  # 1x2xQx2
        spatial_shapes = torch.tensor(self.level_shapes)
        bev_shape = torch.tensor([[self.grid.bev_h, self.grid.bev_w]])
        with_history, query = torch.stack([turned, bev_query], dim=1), bev_query
        for layer in self.detector.bev_encoder.encoder.layers:
            values = torch.where(exists, with_history, query[:, None])  # 1x2xQxC
            query = layer(query, self.positions[None], values, references, bev_shape, features, spatial_shapes, hits)
        return query


def preprocessor_of(detector: BEVFormer) -> BEVFormerDataPreprocessor:
    """Return what prepares a detector's images.

    Raises:
        InputError: if it is of another kind.
    """
    preprocessor = detector.data_preprocessor
    if not isinstance(preprocessor, BEVFormerDataPreprocessor):
        raise InputError(
            f'data_preprocessor is a {type(preprocessor).__name__}, which cannot be exported: use a '
            'BEVFormerDataPreprocessor'
        )
    return preprocessor


def _require_static_form(detector: BEVFormer) -> None:
    """Raise an InputError for a detector with other heads or layers than those that are known here."""
    known = heads_of(detector)
    others = [name for name, head in detector.heads.items() if head not in known and head.predicts]
    if others:
        raise InputError(
            f'heads {", ".join(others)} would not be in the exported file, which has boxes of a DetectionHead and the '
            f'map of a MapHead alone: leave them out with --cfg-options model.heads.{others[0]}=None'
        )
    if detector.proposing_head is not None:
        raise InputError(
            f'object queries start from what heads.{detector.proposing_head[0]} proposes, which cannot be exported: '
            'train with model.heads.detection.queries.type=LearnedQueries'
        )
    for layer in detector.bev_encoder.encoder.layers:
        attention = getattr(layer, 'spatial_cross_attention', None)
        if not isinstance(layer, BEVFormerEncoderLayer) or not isinstance(attention, SpatialCrossAttention):
            raise InputError(
                f'spatial cross-attention {type(attention).__name__} of a {type(layer).__name__} cannot be exported: '
                'SpatialCrossAttention and PointSpatialCrossAttention can'
            )
