"""The backends of deformable attention and deformable convolution."""

import pytest
import torch

from bevformer_plugin.ops import (
    BACKENDS,
    DEFORM_CONV_BACKENDS,
    set_attention_backend,
    set_deform_conv_backend,
)


@pytest.fixture
def backend(request):
    """Compute with the backend that a test names with ``indirect=True``; skip where it cannot run."""
    if not BACKENDS[request.param].supports('cpu', torch.float32):
        pytest.skip(f'the {request.param} backend cannot run on this machine')
    set_attention_backend(request.param)
    return request.param


@pytest.fixture
def deform_conv_backend(request):
    """Convolve with the backend that a test names with ``indirect=True``; skip where it cannot run."""
    if not DEFORM_CONV_BACKENDS[request.param].supports('cpu', torch.float32):
        pytest.skip(f'the {request.param} backend cannot run on this machine')
    set_deform_conv_backend(request.param)
    return request.param
