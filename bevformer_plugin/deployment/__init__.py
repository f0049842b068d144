"""A trained detector in use: on somebody's own cameras, laid out for speed, on the memory it needs.

Read :mod:`.camera` and :mod:`.rig` first (what is known of the cameras), then :mod:`.frame_predictor` (frames in,
state in and out), :mod:`.predictor` (the network between) and :mod:`.detections` (what comes of it);
:mod:`.rig_check` says what looks wrong with a rig.
"""

from .camera import Camera
from .detections import Detections, PlacedBoxes
from .frame_predictor import StreamFrame, StreamState
from .freed_memory import keep_freed_memory
from .optimization import OptimizedDetector, computes_in_bfloat16, optimize_for_inference
from .predictor import StreamPredictor
from .rig import Rig
from .rig_check import FAULTS, Finding, check_rig, draw_rig

__all__ = [
    'FAULTS',
    'Camera',
    'Detections',
    'Finding',
    'OptimizedDetector',
    'PlacedBoxes',
    'Rig',
    'StreamFrame',
    'StreamPredictor',
    'StreamState',
    'check_rig',
    'computes_in_bfloat16',
    'draw_rig',
    'keep_freed_memory',
    'optimize_for_inference',
]
