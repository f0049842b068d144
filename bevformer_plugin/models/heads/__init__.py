"""From a BEV, or camera features, to predictions and losses."""

from .bev_proposals import BEVProposals
from .box_coder import NMSFreeCoder
from .criterion import SetCriterion3D
from .detection_head import BEVFormerHead
from .hungarian_assigner_3d import HungarianAssigner3D
from .perspective_supervision import PerspectiveSupervision

__all__ = [
    'BEVFormerHead',
    'BEVProposals',
    'HungarianAssigner3D',
    'NMSFreeCoder',
    'PerspectiveSupervision',
    'SetCriterion3D',
]
