"""Detector, head, transformer, matching, losses, box coder, GridMask and data preprocessor."""

from .bev_history import BEVHistory
from .bev_proposals import BEVProposals
from .bevformer import BEVFormer
from .bevformer_head import BEVFormerHead
from .box_coder import NMSFreeCoder
from .camera_features import CameraFeatures
from .data_preprocessor import BEVFormerDataPreprocessor
from .ego_alignment import EgoAlignment
from .freed_memory import keep_freed_memory
from .grid_mask import GridMask
from .hungarian_assigner_3d import HungarianAssigner3D
from .inference import computes_in_bfloat16, optimize_for_inference
from .losses import SetCriterion3D
from .perspective_supervision import PerspectiveSupervision
from .transformer import BEVFormerTransformer

__all__ = [
    'BEVFormer',
    'BEVFormerDataPreprocessor',
    'BEVFormerHead',
    'BEVFormerTransformer',
    'BEVHistory',
    'BEVProposals',
    'CameraFeatures',
    'EgoAlignment',
    'GridMask',
    'HungarianAssigner3D',
    'NMSFreeCoder',
    'PerspectiveSupervision',
    'SetCriterion3D',
    'computes_in_bfloat16',
    'keep_freed_memory',
    'optimize_for_inference',
]
