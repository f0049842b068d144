"""BEVFormer for MMDetection3D 1.x.

Importing the package fills the OpenMMLab registries with BEVFormer's modules and does nothing else. ``ops`` is
imported first: where mmcv has no compiled ``mmcv._ext``, it makes a PyTorch stand-in importable before anything
imports mmdet3d.
"""

from bevformer_plugin import ops  # isort: skip
from bevformer_plugin import datasets, evaluation, geometry, layers, models, schedules, weights

__version__ = '0.1.0'
__all__ = ['datasets', 'evaluation', 'geometry', 'layers', 'models', 'ops', 'schedules', 'weights']
