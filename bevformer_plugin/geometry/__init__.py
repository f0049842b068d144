"""Pure functions on tensors: the BEV grid, projection into cameras, ego motion, box conventions.

Frames and conventions: LiDAR frame x right, y forward, z up, metres. BEV row i grows with +y (row 0 is the rear),
column j with +x, query index ``i * bev_w + j``, cell centre (j + .5, i + .5).
"""

from .bev_grid import BEVGrid, bev_reference_points, pillar_points
from .boxes import boxes_from_old_convention, boxes_to_old_convention, denormalize_boxes, normalize_boxes
from .ego_motion import bev_shift, relative_can_bus, rotate_bev
from .projection import project_to_cameras

__all__ = [
    'BEVGrid',
    'bev_reference_points',
    'bev_shift',
    'boxes_from_old_convention',
    'boxes_to_old_convention',
    'denormalize_boxes',
    'normalize_boxes',
    'pillar_points',
    'project_to_cameras',
    'relative_can_bus',
    'rotate_bev',
]
