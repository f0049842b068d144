"""From camera features, frames and what earlier frames left behind to a bird's-eye view.

Read :mod:`.frames` (what the model knows of a frame), :mod:`.bev_encoder` (the BEV), :mod:`.ego_alignment` (how the
previous BEV comes in) and :mod:`.encoded_frames` (what heads see).
"""

from .bev_encoder import BEVEncoder
from .camera_features import CameraFeatures, samples_by_image_size
from .ego_alignment import EgoAlignment
from .encoded_frames import EncodedFrames
from .frames import BEVHistory, Frame
from .usable_history import usable_history

__all__ = [
    'BEVEncoder',
    'BEVHistory',
    'CameraFeatures',
    'EgoAlignment',
    'EncodedFrames',
    'Frame',
    'samples_by_image_size',
    'usable_history',
]
