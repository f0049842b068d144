"""A trained detector in use: laid out for speed, on the memory it needs, or written as an ONNX file.

Read :mod:`.static_detector` (a detector as one function of tensors of fixed shapes), :mod:`.onnx_export` (how it
becomes a file) and :mod:`.onnx_network` (how the file runs) for ONNX, :mod:`.optimization` for PyTorch.
"""

from .checkpoint_export import export_checkpoint
from .exported_check import check_exported
from .freed_memory import keep_freed_memory
from .hit_budget import budget_for
from .onnx_description import OnnxDescription
from .onnx_detector import OnnxDetector
from .onnx_export import ModelSurroundings, OnnxForm, export_onnx
from .onnx_network import OnnxNetwork
from .optimization import OptimizedDetector, computes_in_bfloat16, optimize_for_inference
from .static_attention import HitBudget

__all__ = [
    'HitBudget',
    'ModelSurroundings',
    'OnnxDescription',
    'OnnxDetector',
    'OnnxForm',
    'OnnxNetwork',
    'OptimizedDetector',
    'budget_for',
    'check_exported',
    'computes_in_bfloat16',
    'export_checkpoint',
    'export_onnx',
    'keep_freed_memory',
    'optimize_for_inference',
]
