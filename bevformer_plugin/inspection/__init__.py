"""What a trained detector sees: the BEV of a sample, and where the pillars of the BEV look in the cameras.

Read :mod:`.encoded_sample` (a sample of a dataset, encoded with its history) and :mod:`.pillar_sampling` (what spatial
cross-attention did meanwhile); :mod:`.inspector` makes pictures of both.
"""

from .encoded_sample import EncodedSample, SampleEncoder
from .inspector import BEVInspector
from .pillar_sampling import RecordedSampling, pillar_view, query_at, recorded_sampling

__all__ = [
    'BEVInspector',
    'EncodedSample',
    'RecordedSampling',
    'SampleEncoder',
    'pillar_view',
    'query_at',
    'recorded_sampling',
]
