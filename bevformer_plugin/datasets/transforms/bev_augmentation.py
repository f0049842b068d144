"""Random rotation, scale and mirroring of the BEV together with the true boxes."""

from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet3d.datasets.transforms import ObjectRangeFilter
from mmdet3d.registry import TRANSFORMS
from mmdet3d.structures import LiDARInstance3DBoxes

from bevformer_plugin.errors import InputError


@TRANSFORMS.register_module()
class RandomBEVAugmentation(BaseTransform):
    """Rotates, scales and mirrors the true boxes of a sample about the LiDAR, and says how in ``bev_augmentation``.

    The detector moves the BEVs of all frames alike; images and calibration stay as they are. A positive angle turns
    counter-clockwise, seen from above. Put it behind ``LoadAnnotations3D``. The dataset has filtered the boxes by its
    range before; those that leave the range are left out here, so that every box is one of a place that the BEV shows
    before and after. (The published code filters after the augmentation alone, and trains on boxes that come from
    where its BEV holds zeros.)

    Args:
        point_cloud_range: (x, y, z) minima, then maxima, in metres, in which the centre of a box must be in x and y.
        max_degrees: largest angle, to either side.
        scales: smallest and largest scale.
        flip_x_prob: chance that x becomes -x.
        flip_y_prob: chance that y becomes -y.

    Raises:
        InputError: if a chance is outside [0, 1], scales are not above 0 and rising, or no true boxes are loaded.
    """

    def __init__(
        self,
        point_cloud_range: Sequence[float],
        max_degrees: float = 22.5,
        scales: tuple[float, float] = (0.95, 1.05),
        flip_x_prob: float = 0.5,
        flip_y_prob: float = 0.5,
    ) -> None:
        if not 0 <= flip_x_prob <= 1 or not 0 <= flip_y_prob <= 1:
            raise InputError(f'flip_x_prob and flip_y_prob lie in [0, 1], got {flip_x_prob} and {flip_y_prob}')
        if len(scales) != 2 or not 0 < scales[0] <= scales[1]:
            raise InputError(f'scales are the smallest and the largest, such as (0.95, 1.05), not {scales!r}')
        self.range_filter = ObjectRangeFilter(list(point_cloud_range))
        self.max_degrees = max_degrees
        self.scales = scales[0], scales[1]
        self.flip_probs = (flip_x_prob, flip_y_prob)

    def transform(self, results: dict) -> dict:
        """Move the true boxes."""
        if 'gt_bboxes_3d' not in results:
            raise InputError(
                'RandomBEVAugmentation finds no true boxes: put LoadAnnotations3D before it into the pipeline, which '
                'must be one for training'
            )
        angle = float(np.deg2rad(np.random.uniform(-self.max_degrees, self.max_degrees)))
        scale = float(np.random.uniform(self.scales[0], self.scales[1]))
        flip_x, flip_y = (bool(np.random.random() < prob) for prob in self.flip_probs)
        boxes = results['gt_bboxes_3d'].clone()
        move_boxes(boxes, angle, scale, flip_x, flip_y)
        kept = self.range_filter.transform({'gt_bboxes_3d': boxes, 'gt_labels_3d': results['gt_labels_3d']})
        return {**results, **kept, 'bev_augmentation': bev_matrix(angle, scale, flip_x, flip_y)}


def move_boxes(boxes: LiDARInstance3DBoxes, angle: float, scale: float, flip_x: bool, flip_y: bool) -> None:
    """Rotate, then scale, then mirror boxes in place; arguments as of :func:`bev_matrix`."""
    if len(boxes) == 0:
        return
    boxes.rotate(angle)
    boxes.scale(scale)
    if flip_x:
        boxes.flip('vertical')  # mmdetection3d's words are for the view from above
    if flip_y:
        boxes.flip('horizontal')


def bev_matrix(angle: float, scale: float, flip_x: bool, flip_y: bool) -> np.ndarray:
    """Compute where places of the LiDAR frame are moved.

    Args:
        angle: radians, counter-clockwise seen from above.
        scale: by which distances grow.
        flip_x: x becomes -x afterwards.
        flip_y: y becomes -y afterwards.

    Returns:
        (2, 2) float64 from (x, y) to (x, y).
    """
    cos, sin = np.cos(angle), np.sin(angle)
    mirroring = np.diag([-1.0 if flip_x else 1.0, -1.0 if flip_y else 1.0])
    return mirroring @ (scale * np.array([[cos, -sin], [sin, cos]]))
