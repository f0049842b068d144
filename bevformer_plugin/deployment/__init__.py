"""A trained detector in use: on somebody's own cameras, laid out for speed, on the memory it needs.

Read :mod:`.camera` and :mod:`.rig` first (what is known of the cameras), then :mod:`.frame_predictor` (frames in,
state in and out), :mod:`.predictor` (the network between) and :mod:`.detections` (what comes of it).
"""

from .camera import Camera
from .detections import Detections, PlacedBoxes
from .frame_predictor import StreamFrame, StreamState
from .freed_memory import keep_freed_memory
from .optimization import OptimizedDetector, computes_in_bfloat16, optimize_for_inference
from .predictor import StreamPredictor
from .rig import Rig

__all__ = [
    'Camera',
    'Detections',
    'OptimizedDetector',
    'PlacedBoxes',
    'Rig',
    'StreamFrame',
    'StreamPredictor',
    'StreamState',
    'computes_in_bfloat16',
    'keep_freed_memory',
    'optimize_for_inference',
]
