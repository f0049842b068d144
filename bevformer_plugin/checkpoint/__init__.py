"""Published weights in, ours out, and back; checkpoint files read and loaded."""

from .conversion import convert_checkpoint
from .files import SAFE_GLOBALS, load_weights, mismatch, publish_checkpoint, read_checkpoint, weights_of
from .initialization import initialize
from .layout import to_ours, to_published
from .record import TrainingRecord, recorded_metainfo

__all__ = [
    'SAFE_GLOBALS',
    'TrainingRecord',
    'convert_checkpoint',
    'initialize',
    'load_weights',
    'mismatch',
    'publish_checkpoint',
    'read_checkpoint',
    'recorded_metainfo',
    'to_ours',
    'to_published',
    'weights_of',
]
