"""Published weights in, ours out, and back."""
from .conversion import convert_checkpoint
from .initialization import initialize
from .layout import to_ours, to_published

__all__ = ['convert_checkpoint', 'initialize', 'to_ours', 'to_published']
