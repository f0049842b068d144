"""Training and testing under PyTorch Lightning, and the same configs under MMEngine's Runner."""

from .config import check_testing, check_training, direct_results, load_config, new_work_dir
from .config_options import parse_config_options
from .data_module import DetectorDataModule
from .detector_module import DetectorModule
from .hardware import Hardware, configured_precision, parse_devices
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
    'parse_config_options',
    'parse_devices',
    'test_with_lightning',
    'train_with_lightning',
    'train_with_mmengine',
]
