"""Training and testing under PyTorch Lightning, and the same configs under MMEngine's Runner."""

from .config import check_testing, check_training, direct_results, load_config, new_work_dir
from .data_module import DetectorDataModule
from .detector_module import DetectorModule
from .hardware import Hardware, configured_precision
from .runs import test_with_lightning, train_with_lightning, train_with_mmengine

__all__ = [
    'DetectorDataModule',
    'DetectorModule',
    'Hardware',
    'check_testing',
    'check_training',
    'configured_precision',
    'direct_results',
    'load_config',
    'new_work_dir',
    'test_with_lightning',
    'train_with_lightning',
    'train_with_mmengine',
]
