"""Training and testing under PyTorch Lightning, and the same configs under MMEngine's Runner.

What reads a config is offered here as well, since every run begins with one.
"""

from bevformer_plugin.configuration import load_config, parse_config_options

from .config import check_testing, check_training, direct_results
from .data_module import DetectorDataModule
from .detector_module import DetectorModule
from .hardware import Hardware, configured_precision, parse_devices
from .interrupts import exit_on_signals
from .mmengine_runs import train_with_mmengine
from .runs import INFERENCE_TYPES, test_with_lightning, train_with_lightning
from .start import NEWEST, RunStart
from .work_dir import check_work_dir

__all__ = [
    'INFERENCE_TYPES',
    'NEWEST',
    'DetectorDataModule',
    'DetectorModule',
    'Hardware',
    'RunStart',
    'check_testing',
    'check_training',
    'check_work_dir',
    'configured_precision',
    'direct_results',
    'exit_on_signals',
    'load_config',
    'parse_config_options',
    'parse_devices',
    'test_with_lightning',
    'train_with_lightning',
    'train_with_mmengine',
]
