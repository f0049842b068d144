"""A trained detector in use: on somebody's own cameras, laid out for speed, or written as an ONNX file.

Read :mod:`.camera` and :mod:`.rig` first (what is known of the cameras), then :mod:`.frame_predictor` (frames in,
state in and out), :mod:`.stream_state` (what that state is), :mod:`.predictor` (the network between),
:mod:`.detections` and :mod:`.predicted_map` (what comes of it); :mod:`.rig_check` says what looks wrong with a rig.
For ONNX read :mod:`.static_detector` (a detector as one function of tensors of fixed shapes), :mod:`.onnx_export` (how
it becomes a file) and :mod:`.onnx_network` (how the file runs).
"""

from .camera import Camera
from .checkpoint_export import ONNX_ENDING, export_checkpoint
from .detections import Detections, PlacedBoxes
from .exported_check import check_exported
from .frame_predictor import StreamFrame
from .freed_memory import keep_freed_memory
from .hit_budget import budget_for
from .onnx_description import OnnxDescription
from .onnx_detector import OnnxDetector
from .onnx_export import ModelSurroundings, OnnxForm, export_onnx
from .onnx_network import OnnxNetwork
from .onnx_predictor import OnnxPredictor
from .onnx_quantization import quantize_features
from .optimization import OptimizedDetector, computes_in_bfloat16, optimize_for_inference
from .predicted_map import PredictedMap
from .predictor import StreamPredictor
from .rig import Rig
from .rig_check import FAULTS, Finding, check_rig, draw_rig
from .static_attention import HitBudget
from .stream_state import StreamState

__all__ = [
    'FAULTS',
    'ONNX_ENDING',
    'Camera',
    'Detections',
    'Finding',
    'HitBudget',
    'ModelSurroundings',
    'OnnxDescription',
    'OnnxDetector',
    'OnnxForm',
    'OnnxNetwork',
    'OnnxPredictor',
    'OptimizedDetector',
    'PlacedBoxes',
    'PredictedMap',
    'Rig',
    'StreamFrame',
    'StreamPredictor',
    'StreamState',
    'budget_for',
    'check_exported',
    'check_rig',
    'computes_in_bfloat16',
    'draw_rig',
    'export_checkpoint',
    'export_onnx',
    'keep_freed_memory',
    'optimize_for_inference',
    'quantize_features',
]
