"""Pure functions on tensors: the BEV grid, projection into cameras, poses, ego motion, box conventions.

Frames and conventions: LiDAR frame x right, y forward, z up, metres. BEV row i grows with +y (row 0 is the rear),
column j with +x, query index ``i * bev_w + j``, cell centre (j + .5, i + .5).
"""

from .bev_grid import BEVGrid, bev_reference_points, pillar_points
from .boxes import (
    BOX_VALUES,
    boxes_from_old_convention,
    boxes_to_old_convention,
    denormalize_boxes,
    network_center,
    normalize_boxes,
    transform_boxes,
)
from .constants import constants
from .ego_motion import bev_shift, rotate_bev, rotation_center, sample_rotated, transform_bev
from .pose import PlanarMotion, heading_of, is_rigid, planar_motion
from .projection import project_to_cameras, split_projection

__all__ = [
    'BOX_VALUES',
    'BEVGrid',
    'PlanarMotion',
    'bev_reference_points',
    'bev_shift',
    'boxes_from_old_convention',
    'boxes_to_old_convention',
    'constants',
    'denormalize_boxes',
    'heading_of',
    'is_rigid',
    'network_center',
    'normalize_boxes',
    'pillar_points',
    'planar_motion',
    'project_to_cameras',
    'rotate_bev',
    'rotation_center',
    'sample_rotated',
    'split_projection',
    'transform_bev',
    'transform_boxes',
]
