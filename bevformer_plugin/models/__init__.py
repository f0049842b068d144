"""Detector, BEV, heads, GridMask and data preprocessor."""

from .bev import BEVEncoder, BEVHistory, CameraFeatures, EgoAlignment, EncodedFrames, Frame, usable_history
from .data_preprocessor import BEVFormerDataPreprocessor
from .detectors import BEVFormer
from .grid_mask import GridMask
from .heads import (
    BEVHead,
    BEVProposals,
    DetectionHead,
    DetectionOutputs,
    HungarianAssigner3D,
    LearnedQueries,
    NMSFreeCoder,
    ObjectQueries,
    PerspectiveSupervision,
    QuerySource,
    SetCriterion3D,
    decode_instances,
)

__all__ = [
    'BEVEncoder',
    'BEVFormer',
    'BEVFormerDataPreprocessor',
    'BEVHead',
    'BEVHistory',
    'BEVProposals',
    'CameraFeatures',
    'DetectionHead',
    'DetectionOutputs',
    'EgoAlignment',
    'EncodedFrames',
    'Frame',
    'GridMask',
    'HungarianAssigner3D',
    'LearnedQueries',
    'NMSFreeCoder',
    'ObjectQueries',
    'PerspectiveSupervision',
    'QuerySource',
    'SetCriterion3D',
    'decode_instances',
    'usable_history',
]
