"""BEVFormer for MMDetection3D 1.x.

Importing the package fills the OpenMMLab registries with BEVFormer's modules and does nothing else. ``ops`` comes
first: where no compiled ``mmcv._ext`` exists it lets Python find a PyTorch stand-in, if installing the plugin has not
done so already, before mmdet3d is imported.
"""

from bevformer_plugin import ops  # isort: skip
from bevformer_plugin import datasets, evaluation, geometry, layers, models, weights

__version__ = '0.1.0'
__all__ = ['datasets', 'evaluation', 'geometry', 'layers', 'models', 'ops', 'weights']
