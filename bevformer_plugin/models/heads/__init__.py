"""From the BEV, or the camera features below it, to predictions and losses: one head for each task.

Read :mod:`.bev_head` (what a head is), :mod:`.detection_head`, :mod:`.object_queries` with its kinds
:mod:`.learned_queries`, :mod:`.bev_proposals` and :mod:`.perspective_proposals`, and :mod:`.criterion`; for maps
:mod:`.map_head` and its two :mod:`.map_decoders`.
"""

from .bev_head import BEVHead
from .bev_proposals import BEVProposals
from .box_coder import NMSFreeCoder
from .criterion import SetCriterion3D
from .detection_head import DetectionHead, DetectionOutputs, decode_instances
from .hungarian_assigner_3d import HungarianAssigner3D
from .learned_queries import LearnedQueries
from .map_decoders import ConvMapDecoder, MapDecoder, MaskMapDecoder
from .map_head import MapHead, map_to_lidar
from .object_queries import ObjectQueries, QuerySource
from .perspective_head import PerspectiveHead
from .perspective_proposals import PerspectiveProposals
from .perspective_supervision import PerspectiveSupervision

__all__ = [
    'BEVHead',
    'BEVProposals',
    'ConvMapDecoder',
    'DetectionHead',
    'DetectionOutputs',
    'HungarianAssigner3D',
    'LearnedQueries',
    'MapDecoder',
    'MapHead',
    'MaskMapDecoder',
    'NMSFreeCoder',
    'ObjectQueries',
    'PerspectiveHead',
    'PerspectiveProposals',
    'PerspectiveSupervision',
    'QuerySource',
    'SetCriterion3D',
    'decode_instances',
    'map_to_lidar',
]
