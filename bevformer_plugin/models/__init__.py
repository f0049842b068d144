"""Detector, BEV, heads, GridMask and data preprocessor."""

from .bev import BEVFormerTransformer, BEVHistory, CameraFeatures, EgoAlignment
from .data_preprocessor import BEVFormerDataPreprocessor
from .detectors import BEVFormer
from .grid_mask import GridMask
from .heads import (
    BEVFormerHead,
    BEVProposals,
    HungarianAssigner3D,
    NMSFreeCoder,
    PerspectiveSupervision,
    SetCriterion3D,
)

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
]
