"""From what the perspective head predicts at all locations of a sample's images to objects in the LiDAR frame."""

from collections.abc import Sequence

import torch
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor

from bevformer_plugin.errors import InputError
from bevformer_plugin.geometry import BEVGrid, split_projection, transform_boxes
from bevformer_plugin.models.bev import Frame, ProposalLimits, Proposals

from .camera_boxes import CameraBoxes

CANDIDATES = 1000  # of an image, of which those that overlap are left out
MIN_SIZE = 0.01  # metres; a smaller length, width or height of a proposal counts as this


def propose(
    predictions: dict[str, Tensor],
    points: Tensor,
    frame: Frame,
    canonical_sizes: Tensor,
    depth_range: tuple[float, float],
    grid: BEVGrid,
    limits: ProposalLimits,
) -> Proposals:
    """Choose the best objects of all images of a sample, and bring them into the LiDAR frame.

    The score is that of DD3D: the root of class times centerness, times the confidence in the 3-D box. An object that
    several cameras see is proposed by each of them; the decoder's self-attention is there to sort that out.

    Args:
        predictions: per name (N, channels, A) at the A locations of N images, classes fastest.
        points: (A, 2) the locations, pixels.
        frame: of the sample.
        canonical_sizes: (classes, 3) usual width, length and height, metres.
        depth_range: smallest and largest depth, metres.
        grid: within whose range in x and y proposals lie; where the BEV is augmented, both before and after that.
        limits: which of the objects are proposed.

    Raises:
        InputError: if a camera's ``lidar2img`` is no projection.
    """
    classes = len(canonical_sizes)
    of_class, central, trust = (predictions[name].sigmoid() for name in ('cls', 'centerness', 'conf'))
    scores = ((of_class * central).sqrt() * trust).flatten(1)  # Nx(classes * A)
    scores, index = scores.topk(min(CANDIDATES, scores.shape[1]))  # NxK
    labels, places = index // len(points), index % len(points)
    sides = predictions['box2d'].gather(2, places[:, None].expand(-1, 4, -1)).transpose(1, 2)  # NxKx4
    boxes2d = torch.cat([points[places] - sides[..., :2], points[places] + sides[..., 2:]], dim=-1)
    kept = (scores >= limits.min_score) & ~_repeats(boxes2d, labels, limits.max_overlap)
    images = kept.nonzero()[:, 0]
    scores, order = scores[kept].sort(descending=True, stable=True)
    images, labels, places = images[order], labels[kept][order], places[kept][order]

    def of_label(name: str) -> Tensor:
        return predictions[name].unflatten(1, (-1, classes))[images, :, labels, places]

    intrinsics, lidar2cam = (values.to(scores)[images] for values in _cameras(frame))
    boxes = CameraBoxes.from_predictions(
        of_label('quat'),
        of_label('ctr') + points[places],
        of_label('depth')[:, 0],
        of_label('size'),
        canonical_sizes[labels],
        intrinsics,
        depth_range,
    )
    in_lidar = lidar_boxes(boxes, lidar2cam)
    within = _within(in_lidar, grid)
    if frame.bev_augmentation is not None:
        in_lidar = transform_boxes(in_lidar, frame.bev_augmentation)
        within &= _within(in_lidar, grid)
    in_lidar, scores, labels = (values[within][: limits.max_num] for values in (in_lidar, scores, labels))
    return Proposals(in_lidar, scores, labels)


def _repeats(boxes2d: Tensor, labels: Tensor, max_overlap: float) -> Tensor:
    """Tell which (N, K) objects overlap a better one of their class and image too much; the best come first.

    The better one need not be kept itself, so that all pairs can be looked at side by side (Fast NMS of YOLACT, arXiv
    1904.02689, section 3.2).
    """
    overlaps = bbox_overlaps(boxes2d, boxes2d) * (labels[:, :, None] == labels[:, None])  # NxKxK
    return (overlaps.triu(diagonal=1) > max_overlap).any(1)


def lidar_boxes(boxes: CameraBoxes, lidar2cam: Tensor) -> Tensor:
    """Bring boxes from their cameras' frames into the LiDAR frame, where they turn about the vertical axis alone.

    Args:
        boxes: n of them.
        lidar2cam: (n, 4, 4) of the box's camera, of which the upper left may mirror.

    Returns:
        (n, 7) metric boxes whose z is the centre's.
    """
    to_lidar = lidar2cam[:, :3, :3].transpose(1, 2)
    centers = (to_lidar @ (boxes.centers - lidar2cam[:, :3, 3])[..., None])[..., 0]
    ahead = (to_lidar @ boxes.rotations[:, :, :1])[..., 0]  # along the length
    sizes = boxes.sizes[:, [1, 0, 2]].clamp(min=MIN_SIZE)
    return torch.cat([centers, sizes, torch.atan2(ahead[:, 1:2], ahead[:, :1])], dim=1)


def _within(boxes: Tensor, grid: BEVGrid) -> Tensor:
    """Tell which (n,) centres lie within the range in x and y; those that are not finite do not."""
    low, high = boxes.new_tensor(grid.point_cloud_range).split(3)
    return ((boxes[:, :2] >= low[:2]) & (boxes[:, :2] <= high[:2])).all(1) & boxes.isfinite().all(1)


def _cameras(frame: Frame) -> tuple[Tensor, Tensor]:
    """Split the projections of a frame, see :func:`split_projection`.

    Raises:
        InputError: with the name of the sample.
    """
    try:
        return split_projection(frame.lidar2img)
    except ValueError as error:
        raise InputError(
            f'lidar2img of sample {frame.name}, by places of the cameras: {error}. Mend their calibration'
        ) from None


def at_all_locations(maps: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Join maps (N, channels, h, w) of all levels, by name, to (N, channels, A) float32."""
    return {name: torch.cat([level[name].flatten(2) for level in maps], dim=2).float() for name in maps[0]}
