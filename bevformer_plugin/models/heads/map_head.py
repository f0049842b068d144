"""The map in bird's-eye view: which cells are road, lane boundary, vehicle and so on (paper table 4, appendix A.3)."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from mmengine.structures import BaseDataElement, PixelData
from torch import Tensor

from bevformer_plugin.errors import InputError, NotFiniteError
from bevformer_plugin.geometry import BEVGrid, bev_reference_points, constants
from bevformer_plugin.handed_down import with_handed_down
from bevformer_plugin.maps import IGNORED, MapProtocol, between_planes, find_protocol, plane_to_global
from bevformer_plugin.models.bev import EncodedFrames, Frame

from .bev_head import BEVHead, require_unmoved


@MODELS.register_module()
class MapHead(BEVHead):
    """Segments the BEV by a map protocol.

    Args:
        protocol: name of the protocol, which decides grid, frame and classes, see
            :mod:`bevformer_plugin.maps.protocols`; it is that of the training data.
        decoder: config of a :class:`MapDecoder`, without what is given here.
        loss_focal: config of mmdet's focal loss, over all cells that count.
        loss_dice: config of mmdet's Dice loss, over the cells of each class and sample.
        embed_dims: channels C; the detector sets it.
        grid: the BEV grid; the detector sets it.

    Raises:
        InputError: there is no such protocol, or the decoder sets what is given here.
    """

    predicts: ClassVar[tuple[str, ...]] = ('pred_map',)
    places: Tensor

    def __init__(
        self, protocol: str, decoder: dict, loss_focal: dict, loss_dice: dict, embed_dims: int, grid: BEVGrid
    ) -> None:
        super().__init__(embed_dims, grid)
        self.protocol = find_protocol(protocol)
        of_decoder = {
            'embed_dims': embed_dims,
            'num_classes': len(self.protocol.classes),
            'grid': grid,
            'map_grid': self.protocol.grid,
        }
        self.decoder = MODELS.build(with_handed_down(decoder, of_decoder, 'decoder', 'the map head'))
        self.loss_focal = MODELS.build(loss_focal)
        self.loss_dice = MODELS.build(loss_dice)
        self.register_buffer('places', _in_bev(_centres(self.protocol.grid), grid), persistent=False)  # HxWx2

    def forward(self, encoded: EncodedFrames) -> Tensor:
        """Compute the (L, B, K, H, W) float32 logits of every decoder layer, on the protocol's grid."""
        # Logits rank cells: float32 also under autocast.
        return self.decoder(encoded.bev_embed, self.places_of(encoded.frames)).float()

    def places_of(self, frames: Sequence[Frame]) -> Tensor:
        """Find where the cells of the map lie in the BEV of each sample.

        Returns:
            (B, H, W, 2) x and y, from -1 to 1 within the BEV.

        Raises:
            InputError: the protocol's frame is the vehicle's, and a sample does not know where its LiDAR is.
        """
        if self.protocol.frame == 'lidar':
            return self.places.expand(len(frames), -1, -1, -1)
        return self.places_in(torch.stack([map_to_lidar(self.protocol, frame) for frame in frames]))

    def places_in(self, planes: Tensor) -> Tensor:
        """Find where the cells of the map lie in the BEV, given how its plane lies in the LiDAR's.

        Args:
            planes: (B, 2, 3) of each sample, see :func:`map_to_lidar`.

        Returns:
            (B, H, W, 2) x and y, from -1 to 1 within the BEV.
        """
        planes = planes.to(self.places, non_blocking=True)
        centres = _centres(self.protocol.grid).to(self.places, non_blocking=True)
        return _in_bev(
            torch.einsum('bij,hwj->bhwi', planes[:, :, :2], centres) + planes[:, None, None, :, 2], self.grid
        )

    def loss(self, encoded: EncodedFrames, samples: Sequence[Det3DDataSample]) -> dict[str, Tensor]:
        """Compute the losses against ``gt_map`` of every sample.

        Returns:
            ``loss_map_focal`` and ``loss_map_dice`` of the last decoder layer, ``d0.loss_map_focal``, ... of others.

        Raises:
            InputError: a sample has no ``gt_map``, or one of another shape than the protocol's, or its BEV was moved.
            NotFiniteError: a loss is not finite.
        """
        require_unmoved(encoded.frames, 'true maps are')
        logits = self(encoded)
        targets = torch.stack([self._truth(sample) for sample in samples]).to(logits.device)  # BxKxHxW
        losses, last = {}, len(logits) - 1
        with torch.autocast(logits.device.type, enabled=False):
            for layer, of_layer in enumerate(logits):
                prefix = '' if layer == last else f'd{layer}.'
                losses[f'{prefix}loss_map_focal'], losses[f'{prefix}loss_map_dice'] = self._losses(of_layer, targets)
        bad = [name for name, loss in losses.items() if not loss.isfinite()]
        if bad:
            raise NotFiniteError(
                f'not finite: {", ".join(bad)}. Lower the learning rate, clip gradients, or train in float32'
            )
        return losses

    def _truth(self, sample: Det3DDataSample) -> Tensor:
        grid = self.protocol.grid
        shape = (len(self.protocol.classes), grid.bev_h, grid.bev_w)
        if 'gt_map' not in sample:
            raise InputError(
                f'sample {sample.metainfo.get("sample_idx")} has no true map: set '
                f'train_dataloader.dataset.map_protocol={self.protocol.name!r} and put '
                "dict(type='LoadMapLabels') into its pipeline"
            )
        truth = sample.get('gt_map').data
        if tuple(truth.shape) != shape:
            raise InputError(
                f'the true map of sample {sample.metainfo.get("sample_idx")} has shape {tuple(truth.shape)}, protocol '
                f'{self.protocol.name!r} has {shape}: give dataset and head the same protocol'
            )
        return truth

    def _losses(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Compute focal and Dice loss of (B, K, H, W) float32 logits."""
        counted = targets != IGNORED
        truth = (targets == 1).float()
        # Of two dimensions and one-hot, which mmdet computes in plain PyTorch on every device.
        num_classes = logits.shape[1]
        cells, truth_of_cells, weights = (
            values.movedim(1, -1).reshape(-1, num_classes) for values in (logits, truth, counted.float())
        )
        focal = self.loss_focal(cells, truth_of_cells, weights, avg_factor=weights.sum().clamp(min=1))
        masked = logits.masked_fill(~counted, torch.finfo(torch.float32).min)  # a probability of 0, as is its truth
        return focal, self.loss_dice(masked.flatten(0, 1).flatten(1), truth.flatten(0, 1).flatten(1))

    def predict(self, encoded: EncodedFrames) -> Mapping[str, Sequence[BaseDataElement]]:
        """Predict the map of every sample: a PixelData of (K, H, W) float32 probabilities."""
        return {'pred_map': [PixelData(data=probabilities) for probabilities in self(encoded)[-1].sigmoid()]}


def map_to_lidar(protocol: MapProtocol, frame: Frame) -> Tensor:
    """Tell how the plane of a protocol's maps lies in that of the LiDAR at a frame.

    Returns:
        (2, 3) float64 as :func:`bevformer_plugin.maps.between_planes`, metres.

    Raises:
        InputError: the protocol's frame is the vehicle's, and the frame does not know where its LiDAR is.
    """
    if protocol.frame == 'lidar':
        return torch.eye(2, 3, dtype=torch.float64)
    if frame.lidar2ego is None:
        raise InputError(
            f'sample {frame.name} has no lidar2ego, and maps by protocol {protocol.name!r} are in the '
            "vehicle's frame: give the meta lidar2ego (4, 4)"
        )
    ego2global, lidar2ego = frame.ego2global.numpy(), frame.lidar2ego.numpy()
    source = plane_to_global(protocol.frame, ego2global, lidar2ego)
    return torch.from_numpy(between_planes(source, plane_to_global('lidar', ego2global, lidar2ego)))


def _centres(grid: BEVGrid) -> Tensor:
    """Compute the centres of all cells, (H, W, 2) float32 metres."""
    low, high = torch.tensor(grid.point_cloud_range).split(3)
    points = bev_reference_points(grid) * (high - low)[:2] + low[:2]
    return points.unflatten(0, (grid.bev_h, grid.bev_w))


def _in_bev(points: Tensor, grid: BEVGrid) -> Tensor:
    """Bring (..., 2) points in metres to -1 to 1 over the grid's extent."""
    low, high = (limit[:2] for limit in constants(grid.point_cloud_range, points.device).split(3))
    return 2 * (points - low) / (high - low) - 1
