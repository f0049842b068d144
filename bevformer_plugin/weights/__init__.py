"""Checkpoints: reading and loading files, converting published weights and back, and checks that they belong."""

from .comparison import check_checkpoint, check_initialization, check_resumption, compare_can_bus, compare_frames
from .conversion import convert_checkpoint
from .files import (
    load_content,
    load_weights,
    mismatch,
    publish_checkpoint,
    read_checkpoint,
    weights_of,
)
from .initialization import initialize
from .layout import to_ours, to_published
from .match_hook import MatchCheckpoint
from .record import TrainingRecord, recorded_metainfo

__all__ = [
    'MatchCheckpoint',
    'TrainingRecord',
    'check_checkpoint',
    'check_initialization',
    'check_resumption',
    'compare_can_bus',
    'compare_frames',
    'convert_checkpoint',
    'initialize',
    'load_content',
    'load_weights',
    'mismatch',
    'publish_checkpoint',
    'read_checkpoint',
    'recorded_metainfo',
    'to_ours',
    'to_published',
    'weights_of',
]
