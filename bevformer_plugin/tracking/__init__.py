"""Tracks from a submission of detections: :mod:`.greedy` follows objects in one scene, :mod:`.scenes` in all."""

from .greedy import GATES, track_scene
from .scenes import track_results

__all__ = ['GATES', 'track_results', 'track_scene']
