"""Detector, BEV, heads, GridMask and data preprocessor."""

from .bev import BEVEncoder, BEVFusion, BEVHistory, CameraFeatures, EgoAlignment, EncodedFrames, Frame
from .data_preprocessor import BEVFormerDataPreprocessor
from .detectors import BEVFormer, BEVFormerV2
from .grid_mask import GridMask
from .heads import (
    BEVHead,
    BEVProposals,
    ConvMapDecoder,
    DetectionHead,
    DetectionOutputs,
    HungarianAssigner3D,
    LearnedQueries,
    MapDecoder,
    MapHead,
    MaskMapDecoder,
    NMSFreeCoder,
    ObjectQueries,
    PerspectiveHead,
    PerspectiveSupervision,
    QuerySource,
    SetCriterion3D,
)

__all__ = [
    'BEVEncoder',
    'BEVFormer',
    'BEVFormerDataPreprocessor',
    'BEVFormerV2',
    'BEVFusion',
    'BEVHead',
    'BEVHistory',
    'BEVProposals',
    'CameraFeatures',
    'ConvMapDecoder',
    'DetectionHead',
    'DetectionOutputs',
    'EgoAlignment',
    'EncodedFrames',
    'Frame',
    'GridMask',
    'HungarianAssigner3D',
    'LearnedQueries',
    'MapDecoder',
    'MapHead',
    'MaskMapDecoder',
    'NMSFreeCoder',
    'ObjectQueries',
    'PerspectiveHead',
    'PerspectiveSupervision',
    'QuerySource',
    'SetCriterion3D',
]
