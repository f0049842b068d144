"""Detectors: camera images in, predictions of every head out."""

from .bevformer import BEVFormer
from .bevformer_v2 import BEVFormerV2

__all__ = ['BEVFormer', 'BEVFormerV2']
