"""Info files: one pickle per split with what the dataset needs of every keyframe, made from the nuScenes tables.

Read in this order: :mod:`.nuscenes_tables` (a keyframe's tables -> its entry), :mod:`.can_bus` (its 18-vector),
:mod:`.creation` (scenes in parallel, splits, files), :mod:`.formats` (recognising a file; foreign formats -> ours).
"""

from .atomic_write import atomic_write
from .can_bus import CAN_BUS_RULES
from .creation import SPLITS, convert_infos, create_nuscenes_infos
from .formats import load_infos, require_matching
from .nuscenes_tables import CATEGORIES

__all__ = [
    'CAN_BUS_RULES',
    'CATEGORIES',
    'SPLITS',
    'atomic_write',
    'convert_infos',
    'create_nuscenes_infos',
    'load_infos',
    'require_matching',
]
