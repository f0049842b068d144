"""Supervision of the camera features in each camera's own view."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from mmdet.utils import reduce_mean
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.model import bias_init_with_prob
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from bevformer_plugin.geometry import BEVGrid
from bevformer_plugin.models.bev import CameraFeatures, EncodedFrames

from .bev_head import BEVHead, require_unmoved, true_objects
from .center_heatmap import draw_centers, last_in_each_cell

MIN_DEPTH = 1.0  # metres; nearer centres are not supervised
VALUES = 6  # centre offset (2, cells), log depth, log l, log w, log h


@dataclass(frozen=True)
class _Views:
    """Predictions in the camera views and their targets.

    Attributes:
        heatmap: (B, N, K, h, w) in 0..1.
        heatmap_target: likewise.
        values: (B, N, h, w, 6).
        value_target: likewise.
        holds_center: (B, N, h, w, 1), 1 where values are trained.
    """

    heatmap: Tensor
    heatmap_target: Tensor
    values: Tensor
    value_target: Tensor
    holds_center: Tensor


@MODELS.register_module()
class PerspectiveSupervision(BEVHead):
    """An auxiliary head on the camera features, used in training alone (BEVFormer v2, arXiv 2211.10439, section 3.2).

    The BEV losses reach backbone and neck through attention only; this one reaches them directly, so that they learn
    in far fewer steps what objects look like. Every projected object centre is a Gaussian on its class's heatmap
    (CenterNet, arXiv 1904.07850), with offset, depth and size regressed in its cell.

    Args:
        num_classes: object classes.
        loss_heatmap: config of mmdet's Gaussian focal loss.
        loss_values: config of mmdet's L1 loss.
        embed_dims: channels C of the features; the detector sets it.
        grid: the BEV grid, which every head is given; the detector sets it.
    """

    def __init__(
        self, num_classes: int, loss_heatmap: dict, loss_values: dict, embed_dims: int, grid: BEVGrid
    ) -> None:
        super().__init__(embed_dims, grid)
        self.num_classes = num_classes
        self.shared = nn.Sequential(nn.Conv2d(embed_dims, embed_dims, 3, padding=1), nn.ReLU())
        self.heatmap = nn.Conv2d(embed_dims, num_classes, 1)
        self.values = nn.Conv2d(embed_dims, VALUES, 1)
        self.loss_heatmap = MODELS.build(loss_heatmap)
        self.loss_values = MODELS.build(loss_values)
        assert self.heatmap.bias is not None
        nn.init.constant_(self.heatmap.bias, bias_init_with_prob(0.01))

    def loss(self, encoded: EncodedFrames, samples: Sequence[Det3DDataSample]) -> dict[str, Tensor]:
        """Compute losses on the finest feature level against ``gt_instances_3d`` of every sample.

        Returns:
            ``perspective.loss_heatmap`` and ``perspective.loss_values``.

        Raises:
            InputError: if true boxes were moved, which the images do not show, or are missing.
        """
        require_unmoved(encoded.frames, 'the images of PerspectiveSupervision are')
        device = encoded.bev_embed.device
        lidar2img = torch.stack([frame.lidar2img for frame in encoded.frames]).to(device, torch.float32)
        objects = true_objects(samples)
        gt_boxes = [of_sample.get('bboxes_3d') for of_sample in objects]
        gt_labels = [of_sample.get('labels_3d') for of_sample in objects]
        parts = [
            self._predictions_and_targets(features, lidar2img, gt_boxes, gt_labels)
            for features in encoded.camera_features
        ]
        num_centers = reduce_mean(torch.stack([part.holds_center.sum() for part in parts]).sum()).clamp(min=1).item()
        of_heatmaps = [self.loss_heatmap(part.heatmap, part.heatmap_target, avg_factor=num_centers) for part in parts]
        of_values = [
            self.loss_values(
                part.values, part.value_target, part.holds_center.expand_as(part.values), avg_factor=num_centers
            )
            for part in parts
        ]
        return {
            'perspective.loss_heatmap': torch.stack(of_heatmaps).sum(),
            'perspective.loss_values': torch.stack(of_values).sum(),
        }

    def predict(self, encoded: EncodedFrames) -> Mapping[str, Sequence[BaseDataElement]]:
        """Predict nothing, since the head is used in training alone."""
        return {}

    def _predictions_and_targets(
        self,
        features: CameraFeatures,
        lidar2img: Tensor,
        gt_boxes: list[LiDARInstance3DBoxes],
        gt_labels: list[Tensor],
    ) -> _Views:
        """Collect predictions and targets of samples whose images have one size; true boxes are the whole batch's."""
        finest = features.levels[0]
        shared = self.shared(finest.flatten(0, 1))
        heatmap = self.heatmap(shared).float().sigmoid().clamp(1e-4, 1 - 1e-4).unflatten(0, finest.shape[:2])
        values = self.values(shared).float().unflatten(0, finest.shape[:2]).permute(0, 1, 3, 4, 2)  # BxNxhxwx6
        # Written in place through views, so the memory's layout is given, not that of the channels-last predictions.
        target, value_target, holds_center = (
            torch.zeros(shape, device=values.device) for shape in (heatmap.shape, values.shape, values[..., :1].shape)
        )
        for place, sample in enumerate(features.samples):
            if len(gt_boxes[sample]):
                with torch.autocast(values.device.type, enabled=False):  # projection needs float32
                    self._draw(
                        target[place],
                        value_target[place],
                        holds_center[place],
                        gt_boxes[sample],
                        gt_labels[sample],
                        lidar2img[sample],
                        features.image_hw,
                    )
        return _Views(heatmap, target, values, value_target, holds_center)

    @staticmethod
    def _draw(
        heatmap: Tensor,
        values: Tensor,
        holds_center: Tensor,
        boxes: LiDARInstance3DBoxes,
        labels: Tensor,
        lidar2img: Tensor,
        image_hw: tuple[int, int],
    ) -> None:
        """Write one sample's targets: NxKxhxw heatmaps, Nxhxwx6 values, Nxhxwx1 flags."""
        height, width = heatmap.shape[-2:]
        points = torch.cat([boxes.gravity_center[:, None], boxes.corners], dim=1)  # nx9x3
        points = torch.cat([points, torch.ones_like(points[..., :1])], dim=-1).to(lidar2img)
        pixels = torch.einsum('cij,npj->cnpi', lidar2img[:, :3], points)  # Nxnx9x3
        depth = pixels[..., 2]
        to_cells = pixels.new_tensor([width / image_hw[1], height / image_hw[0]])
        cells = pixels[..., :2] / depth.clamp(min=MIN_DEPTH)[..., None] * to_cells  # Nxnx9x2
        center = cells[:, :, 0]
        limit = center.new_tensor([width, height])
        seen = (depth[..., 0] > MIN_DEPTH) & (center >= 0).all(-1) & (center < limit).all(-1)  # Nxn
        extent = (cells[:, :, 1:].amax(2) - cells[:, :, 1:].amin(2)).amin(-1)  # Nxn, the shorter side
        camera, index = seen.nonzero(as_tuple=True)
        center, depth, extent = center[camera, index], depth[camera, index, 0], extent[camera, index]
        cell = center.long()  # (column, row)
        draw_centers(
            heatmap.view(-1, height, width),
            camera * heatmap.shape[1] + labels[index],
            cell,
            (extent / 4).floor().clamp(1.0, 6.0),
        )
        x, y = cell.unbind(1)
        described = torch.cat([center - cell - 0.5, depth[:, None].log(), boxes.dims[index].log().to(center)], dim=1)
        last = last_in_each_cell((camera * height + y) * width + x)
        values[camera[last], y[last], x[last]] = described[last]
        holds_center[camera, y, x] = 1
