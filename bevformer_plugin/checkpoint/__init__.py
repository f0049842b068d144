"""Published weights in, ours out, and back; checkpoint files read and loaded."""

from .conversion import convert_checkpoint
from .files import SAFE_GLOBALS, load_weights, mismatch, publish_checkpoint, read_checkpoint
from .initialization import initialize
from .layout import to_ours, to_published

__all__ = [
    'SAFE_GLOBALS',
    'convert_checkpoint',
    'initialize',
    'load_weights',
    'mismatch',
    'publish_checkpoint',
    'read_checkpoint',
    'to_ours',
    'to_published',
]
