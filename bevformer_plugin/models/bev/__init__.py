"""From camera features and what earlier frames left behind to a bird's-eye view."""

from .bev_encoder import BEVFormerTransformer
from .camera_features import CameraFeatures
from .ego_alignment import EgoAlignment
from .frames import BEVHistory

__all__ = ['BEVFormerTransformer', 'BEVHistory', 'CameraFeatures', 'EgoAlignment']
