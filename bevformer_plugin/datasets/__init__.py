"""Data: info files, the dataset of frame queues, its transforms and samplers.

Read :mod:`.temporal_dataset` (what an item is) first, then :mod:`.transforms` (from files to tensors) and
:mod:`.samplers` (scenes as streams) or :mod:`.training_sampler` (order and randomness in training). :mod:`.infos`
makes the files that the dataset reads.
"""

from .infos import create_nuscenes_infos, load_infos
from .samplers import SceneStreamBatchSampler, SceneStreamSampler
from .temporal_dataset import NuScenesTemporalDataset
from .training_sampler import ResumableSampler, SeededItems
from .transforms import (
    LoadMapLabels,
    LoadMultiViewImages,
    PackTemporalInputs,
    PhotoMetricDistortionMultiView,
    ResizeMultiView,
)

__all__ = [
    'LoadMapLabels',
    'LoadMultiViewImages',
    'NuScenesTemporalDataset',
    'PackTemporalInputs',
    'PhotoMetricDistortionMultiView',
    'ResizeMultiView',
    'ResumableSampler',
    'SceneStreamBatchSampler',
    'SceneStreamSampler',
    'SeededItems',
    'create_nuscenes_infos',
    'load_infos',
]
