"""The backends of deformable attention."""

import pytest
import torch

from bevformer_plugin.ops import set_attention_backend
from bevformer_plugin.ops.backends import BACKENDS


@pytest.fixture
def backend(request):
    """Compute with the backend that a test names with ``indirect=True``; skip where it cannot run."""
    if not BACKENDS[request.param].supports('cpu', torch.float32):
        pytest.skip(f'the {request.param} backend cannot run on this machine')
    set_attention_backend(request.param)
    return request.param
