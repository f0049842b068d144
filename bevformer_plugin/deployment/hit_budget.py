"""How much room calibrations need in a graph of fixed shapes."""

import math
from collections.abc import Iterable

from torch import Tensor

from bevformer_plugin.errors import InputError
from bevformer_plugin.geometry import pillar_points, project_to_cameras
from bevformer_plugin.models import BEVFormer

from .static_attention import HitBudget, Shape
from .static_detector import padded_hw, preprocessor_of

MARGIN = 1.1  # cameras of a moving vehicle see a little more or less of the grid in every frame


def budget_for(detector: BEVFormer, projections: Iterable[Tensor], image_hw: Shape) -> HitBudget:
    """Choose the room for hits: a tenth more than any camera needs, and one camera more than any pillar needs.

    Args:
        detector: gives the BEV grid and the padding of images.
        projections: of each frame (N, 4, 4), LiDAR metres to homogeneous pixels of images of the size before padding.
        image_hw: that size.

    Raises:
        InputError: if there are none, or their cameras see no pillar.
    """
    encoder = detector.bev_encoder
    pillars = pillar_points(encoder.grid, encoder.encoder.num_points_in_pillar)
    padded = padded_hw(preprocessor_of(detector), image_hw)
    hits = cameras = frames = 0
    for projection in projections:
        frames += 1
        _, visible = project_to_cameras(pillars, projection[None].float(), padded)
        hit = visible[0].any(-1)  # NxQ
        hits, cameras = max(hits, int(hit.sum(1).max())), max(cameras, int(hit.sum(0).max()))
    if not hits:
        raise InputError(
            f'the cameras of {frames} calibrations see nothing of the BEV: the file needs to know how many pillars a '
            'camera sees. Give data or a rig whose lidar2img maps metres of the LiDAR frame to pixels'
        )
    queries = encoder.grid.num_queries
    return HitBudget(min(math.ceil(hits * MARGIN), queries), min(cameras + 1, detector.num_cameras))
