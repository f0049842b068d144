"""From the BEV, or the camera features below it, to predictions and losses: one head for each task.

Read :mod:`.bev_head` (what a head is), :mod:`.detection_head`, :mod:`.object_queries` with its two kinds
:mod:`.learned_queries` and :mod:`.bev_proposals`, and :mod:`.criterion`.
"""

from .bev_head import BEVHead
from .bev_proposals import BEVProposals
from .box_coder import NMSFreeCoder
from .criterion import SetCriterion3D
from .detection_head import DetectionHead, DetectionOutputs, decode_instances
from .hungarian_assigner_3d import HungarianAssigner3D
from .learned_queries import LearnedQueries
from .object_queries import ObjectQueries, QuerySource
from .perspective_supervision import PerspectiveSupervision

__all__ = [
    'BEVHead',
    'BEVProposals',
    'DetectionHead',
    'DetectionOutputs',
    'HungarianAssigner3D',
    'LearnedQueries',
    'NMSFreeCoder',
    'ObjectQueries',
    'PerspectiveSupervision',
    'QuerySource',
    'SetCriterion3D',
    'decode_instances',
]
