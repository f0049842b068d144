"""Operators: multi-scale deformable attention, deformable convolution, and the stand-in for mmcv's compiled module.

Importing this package makes ``mmcv.ops`` importable. ``MMCV_EXT`` tells whether mmcv uses its own compiled operators
('compiled') or those in PyTorch ('stand-in').
"""

from .backends import (
    BACKENDS,
    DEFORM_CONV_BACKENDS,
    backend_name,
    deform_conv_backend_name,
    set_attention_backend,
    set_deform_conv_backend,
)
from .deform_conv_arguments import DeformConvSettings
from .deform_conv_reference import convolve_whole_batch
from .mmcv_finder import provide_mmcv_ext
from .modulated_deform_conv import modulated_deform_conv2d
from .multi_scale_deformable_attention import multi_scale_deformable_attention, ragged_deformable_attention

MMCV_EXT = provide_mmcv_ext()

__all__ = [
    'BACKENDS',
    'DEFORM_CONV_BACKENDS',
    'MMCV_EXT',
    'DeformConvSettings',
    'backend_name',
    'convolve_whole_batch',
    'deform_conv_backend_name',
    'modulated_deform_conv2d',
    'multi_scale_deformable_attention',
    'ragged_deformable_attention',
    'set_attention_backend',
    'set_deform_conv_backend',
]
