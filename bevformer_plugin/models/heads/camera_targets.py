"""Which true object each location of a camera's feature maps is trained on (FCOS, arXiv 1904.01355, section 3.2)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

INFINITY = 1e8


@dataclass(frozen=True)
class CameraInstances:
    """True objects in the images of a batch.

    Attributes:
        images: (n,) places of their images among those of the batch.
        labels: (n,) classes.
        boxes2d: (n, 4) x1, y1, x2, y2 in pixels.
        boxes3d: (n, 10) rotation (w, x, y, z), centre, width, length, height, camera frame, metres.
        attributes: (n,) 0 to 2, or 3 where there is none.
        speeds: (n,) metres per second, NaN where not known.
    """

    images: Tensor
    labels: Tensor
    boxes2d: Tensor
    boxes3d: Tensor
    attributes: Tensor
    speeds: Tensor


@dataclass(frozen=True)
class LocationTargets:
    """What the locations of some images' maps are trained on; all locations, then those with an object.

    Attributes:
        labels: (A,) class of every location, the number of classes for background.
        positives: (P,) which locations have an object.
        objects: (P,) which one.
        sides: (P, 4) distances from the location to the left, top, right and bottom of the 2-D box, pixels.
    """

    labels: Tensor
    positives: Tensor
    objects: Tensor
    sides: Tensor

    def centerness(self) -> Tensor:
        """Compute how central (P,) locations lie in their 2-D boxes, from 0 to 1 (FCOS, equation 3)."""
        across, along = self.sides[:, [0, 2]], self.sides[:, [1, 3]]
        ratios = across.amin(1) / across.amax(1) * along.amin(1) / along.amax(1)
        return ratios.clamp(min=0).sqrt()


def assign_locations(
    locations: Sequence[Tensor],
    images: int,
    instances: CameraInstances,
    strides: Sequence[int],
    largest_sides: Sequence[float],
    center_radius: float,
    num_classes: int,
) -> LocationTargets:
    """Assign objects to locations: near a box's centre, on the level for its size, the smallest box first.

    Args:
        locations: per level (h * w, 2) x, y in pixels, row by row.
        images: number of images, all of one size.
        instances: the objects in them.
        strides: of the levels, pixels.
        largest_sides: of the levels: a location belongs to the level whose bound is the first that its largest
            distance to a side does not exceed.
        center_radius: in strides; a location is in the middle of a box if it is within this of the centre and inside.
        num_classes: the label of background.

    Returns:
        Targets of all locations, ordered by level, image, row and column.
    """
    labels, objects, sides = [], [], []
    for level, points in enumerate(locations):
        bounds = largest_sides[level - 1] if level else -1.0, largest_sides[level]
        for image in range(images):
            inside = (instances.images == image).nonzero()[:, 0]
            label = torch.full((len(points),), num_classes, device=points.device)
            chosen = torch.zeros_like(label)
            distances = points.new_zeros(len(points), 4)
            if len(inside):
                boxes = instances.boxes2d[inside]
                all_sides = sides_of(points, boxes)  # Lxnx4
                fits = _central(points, boxes, center_radius * strides[level])
                largest = all_sides.amax(-1)
                fits &= (largest >= bounds[0]) & (largest <= bounds[1])
                areas = (boxes[:, 2:] - boxes[:, :2]).prod(1).expand(len(points), -1)
                smallest, index = areas.masked_fill(~fits, INFINITY).min(1)
                found = smallest < INFINITY
                label[found] = instances.labels[inside][index[found]]
                chosen = inside[index]
                distances = all_sides[torch.arange(len(points), device=points.device), index]
            labels.append(label)
            objects.append(chosen)
            sides.append(distances)
    all_labels = torch.cat(labels)
    positives = (all_labels < num_classes).nonzero()[:, 0]
    return LocationTargets(all_labels, positives, torch.cat(objects)[positives], torch.cat(sides)[positives])


def sides_of(points: Tensor, boxes: Tensor) -> Tensor:
    """Compute the distances (L, n, 4) from (L, 2) locations to left, top, right and bottom of (n, 4) boxes."""
    return torch.cat([points[:, None] - boxes[:, :2], boxes[:, 2:] - points[:, None]], dim=-1)


def _central(points: Tensor, boxes: Tensor, radius: float) -> Tensor:
    """Tell which (L, n) locations are within ``radius`` of a box's centre along both axes, and inside the box."""
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    low = torch.maximum(centers - radius, boxes[:, :2])
    high = torch.minimum(centers + radius, boxes[:, 2:])
    return (sides_of(points, torch.cat([low, high], dim=1)) > 0).all(-1)
