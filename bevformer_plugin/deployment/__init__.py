"""A trained detector in use: laid out for speed, on the memory it needs, on a vehicle's own cameras."""

from .camera import Camera
from .freed_memory import keep_freed_memory
from .optimization import OptimizedDetector, computes_in_bfloat16, optimize_for_inference
from .rig import Rig
from .rig_check import check_rig
from .rig_findings import FAULTS, Finding

__all__ = [
    'FAULTS',
    'Camera',
    'Finding',
    'OptimizedDetector',
    'Rig',
    'check_rig',
    'computes_in_bfloat16',
    'keep_freed_memory',
    'optimize_for_inference',
]
