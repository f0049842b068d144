"""The backends of multi-scale deformable attention and of modulated deformable convolution."""

from torch import Tensor

from . import deform_conv_reference, mmcv_deform_conv, mmcv_operator, reference
from .backend_choice import Backend, BackendChoice
from .native import attention as native_attention
from .native import deform_conv as native_deform_conv
from .triton import attention as triton_attention
from .triton import deform_conv as triton_deform_conv

BACKENDS = {
    'native': Backend(native_attention.supports, native_attention.forward, native_attention.backward),
    'triton': Backend(triton_attention.supports, triton_attention.forward, triton_attention.backward),
    'mmcv': Backend(mmcv_operator.supports, mmcv_operator.forward, mmcv_operator.backward),
    'reference': Backend(lambda device, dtype: True, reference.forward, reference.backward),
}
DEFORM_CONV_BACKENDS = {
    'native': Backend(native_deform_conv.supports, native_deform_conv.forward, native_deform_conv.backward),
    'triton': Backend(triton_deform_conv.supports, triton_deform_conv.forward, triton_deform_conv.backward),
    'mmcv': Backend(mmcv_deform_conv.supports, mmcv_deform_conv.forward, mmcv_deform_conv.backward),
    'reference': Backend(lambda device, dtype: True, deform_conv_reference.forward, deform_conv_reference.backward),
}
ATTENTION = BackendChoice('attention', 'deformable attention', 'BEVFORMER_ATTENTION_BACKEND', BACKENDS)
DEFORM_CONV = BackendChoice(
    'deformable convolution', 'deformable convolution', 'BEVFORMER_DEFORM_CONV_BACKEND', DEFORM_CONV_BACKENDS
)


def set_attention_backend(name: str | None) -> None:
    """Choose one backend for all calls; None restores the choice by environment variable, or else by device and type.

    Raises:
        InputError: if the name is unknown.
    """
    ATTENTION.choose(name)


def set_deform_conv_backend(name: str | None) -> None:
    """Choose one backend for all deformable convolutions, as :func:`set_attention_backend` does for attention.

    Raises:
        InputError: if the name is unknown.
    """
    DEFORM_CONV.choose(name)


def backend_name(value: Tensor) -> str:
    """Name the backend of deformable attention that computes for a value with this device and type.

    Raises:
        InputError: if the chosen backend is unknown, or cannot compute on this device, type or machine.
    """
    return ATTENTION.name_for(value)


def deform_conv_backend_name(inputs: Tensor) -> str:
    """Name the backend of deformable convolution that computes for inputs with this device and type.

    Raises:
        InputError: if the chosen backend is unknown, or cannot compute on this device, type or machine.
    """
    return DEFORM_CONV.name_for(inputs)
