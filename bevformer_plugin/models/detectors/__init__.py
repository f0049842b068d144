"""Detectors: camera images in, predictions of every head out."""

from .bevformer import BEVFormer

__all__ = ['BEVFormer']
