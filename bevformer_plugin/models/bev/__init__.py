"""From camera features, frames and what earlier frames left behind to a bird's-eye view.

Read :mod:`.frames` (what the model knows of a frame), :mod:`.bev_encoder` (the BEV), :mod:`.ego_alignment` (how the
previous BEV comes in) and :mod:`.encoded_frames` (what heads see). BEVFormerV2 builds the BEVs of several frames side
by side: :mod:`.kept_frames` (what it keeps of them) and :mod:`.bev_fusion` (how they become one).
"""

from .bev_encoder import BEVEncoder
from .bev_fusion import BEVFusion
from .camera_features import CameraFeatures, in_batch_order, samples_by_image_size
from .ego_alignment import EgoAlignment
from .encoded_frames import EncodedFrames
from .frames import BEVHistory, Frame, History
from .kept_frames import EncodedParallelFrames, FeatureHistory, KeptFrame, left_behind, next_position
from .proposals import ProposalLimits, Proposals
from .usable_history import AnyHistory, usable_history

__all__ = [
    'AnyHistory',
    'BEVEncoder',
    'BEVFusion',
    'BEVHistory',
    'CameraFeatures',
    'EgoAlignment',
    'EncodedFrames',
    'EncodedParallelFrames',
    'FeatureHistory',
    'Frame',
    'History',
    'KeptFrame',
    'ProposalLimits',
    'Proposals',
    'in_batch_order',
    'left_behind',
    'next_position',
    'samples_by_image_size',
    'usable_history',
]
