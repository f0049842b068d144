"""What the perspective head of BEVFormer v2 has to know of annotated objects beyond their box and class."""

from dataclasses import dataclass

import numpy as np
from mmdet3d.structures import LiDARInstance3DBoxes

NO_ATTRIBUTE = 3
# Each family of classes has up to three attributes of its own.
ATTRIBUTES = {
    'vehicle.moving': 0,
    'vehicle.parked': 1,
    'vehicle.stopped': 2,
    'pedestrian.moving': 0,
    'pedestrian.standing': 1,
    'pedestrian.sitting_lying_down': 2,
    'cycle.with_rider': 0,
    'cycle.without_rider': 1,
}


@dataclass(frozen=True)
class CameraObjects:
    """The annotated objects of a frame, wherever they are.

    Attributes:
        boxes: (n, 9) with velocities, LiDAR frame.
        labels: (n,).
        attributes: (n,) 0 to 2, or 3 where there is none.
        num_points: (n,) LiDAR and radar points in the box.
    """

    boxes: LiDARInstance3DBoxes
    labels: np.ndarray
    attributes: np.ndarray
    num_points: np.ndarray

    @classmethod
    def of_annotations(cls, ann_info: dict) -> 'CameraObjects':
        """Collect the objects of the chosen classes from what MMDetection3D makes of an entry's ``instances``."""
        known = ann_info['gt_labels_3d'] >= 0
        count = len(known)
        attributes = [ATTRIBUTES.get(name, NO_ATTRIBUTE) for name in ann_info.get('attribute', [''] * count)]
        points = sum(np.asarray(ann_info.get(key, np.zeros(count))) for key in ('num_lidar_pts', 'num_radar_pts'))
        return cls(
            boxes=ann_info['gt_bboxes_3d'][known],
            labels=ann_info['gt_labels_3d'][known],
            attributes=np.array(attributes, dtype=np.int64)[known],
            num_points=np.asarray(points, dtype=np.int64)[known],
        )
