"""A trained detector in use: laid out for speed, on the memory it needs."""

from .camera import Camera
from .freed_memory import keep_freed_memory
from .optimization import OptimizedDetector, computes_in_bfloat16, optimize_for_inference
from .rig import Rig

__all__ = [
    'Camera',
    'OptimizedDetector',
    'Rig',
    'computes_in_bfloat16',
    'keep_freed_memory',
    'optimize_for_inference',
]
