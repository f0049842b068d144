"""Multi-scale deformable attention in C++ for CPUs, compiled once with the machine's compiler and cached."""
import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

import torch
from mmengine.logging import print_log
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

SOURCE = Path(__file__).with_name('multi_scale_deformable_attention.cpp')
FLAGS = ('-O3', '-march=native', '-fno-math-errno', '-fno-trapping-math', '-fopenmp', '-fPIC', '-std=c++17')


def _openmp_runtime() -> list[str]:
    """Torch's own OpenMP runtime to link with, so that both share one pool of threads."""
    return [str(path) for path in sorted((Path(torch.__file__).parent / 'lib').glob('libgomp*.so*'))[:1]]


def _cache_folder() -> Path:
    return Path(os.environ.get('XDG_CACHE_HOME', Path.home() / '.cache')) / 'bevformer_plugin'


def _processor() -> str:
    """What -march=native depends on."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(('flags', 'Features'))), platform.machine())


def _build(compiler: str) -> Path:
    """Compile the source unless that has been done before with the same compiler, torch and processor."""
    version = subprocess.run([compiler, '--version'], capture_output=True, text=True, check=True).stdout
    identity = '\n'.join([SOURCE.read_text(), *FLAGS, version, torch.__version__, _processor()])
    library = _cache_folder() / f'msda-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.so'
    if library.exists():
        return library
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        compiled, linked = f'{folder}/msda.o', f'{folder}/msda.so'
        runtime = _openmp_runtime() or ['-fopenmp']
        for arguments in ([*FLAGS, '-c', str(SOURCE), '-o', compiled], ['-shared', compiled, *runtime, '-o', linked]):
            subprocess.run([compiler, *arguments], capture_output=True, text=True, check=True)
        os.replace(linked, library)  # whole or not at all, whoever else is building it
    return library


@lru_cache(maxsize=1)
def load_library() -> ctypes.CDLL | None:
    """The compiled operator; None, said once in the log, where no compiler is found or it fails."""
    compiler = os.environ.get('CXX') or shutil.which('g++') or shutil.which('c++') or shutil.which('clang++')
    if compiler is None:
        print_log('no C++ compiler found: multi-scale deformable attention runs in plain PyTorch, which takes longer',
                  logger='current')
        return None
    try:
        library = ctypes.CDLL(str(_build(compiler)))
    except (OSError, subprocess.CalledProcessError) as error:
        details = getattr(error, 'stderr', None) or error
        print_log(f'{compiler} cannot build multi-scale deformable attention; it runs in plain PyTorch: {details}',
                  logger='current')
        return None
    library.msda_forward.restype = library.msda_backward.restype = None
    return library


def _call(function: ctypes._CFuncPtr, tensors: list[Tensor], sizes: list[int]) -> None:
    function(*(ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors), *(ctypes.c_int64(size) for size in sizes))


class NativeMultiScaleDeformableAttention(torch.autograd.Function):
    """Arguments as of the operator, float32 on the CPU; ``spatial_shapes`` an int64 tensor."""

    @staticmethod
    def forward(ctx: FunctionCtx, value: Tensor, spatial_shapes: Tensor, sampling_locations: Tensor,
                attention_weights: Tensor) -> Tensor:
        """(B, Q, heads * C)."""
        inputs = [tensor.contiguous() for tensor in (value, spatial_shapes, sampling_locations, attention_weights)]
        batch, num_values, heads, channels = value.shape
        queries, _, levels, points = attention_weights.shape[1:]
        ctx.sizes = [batch, num_values, heads, channels, queries, levels, points]
        ctx.save_for_backward(*inputs)
        output = value.new_empty(batch, queries, heads * channels)
        _call(load_library().msda_forward, [*inputs, output], ctx.sizes)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_output: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
        """Gradients of value, locations and weights."""
        inputs = ctx.saved_tensors
        grads = [torch.zeros_like(inputs[0]), torch.empty_like(inputs[2]), torch.empty_like(inputs[3])]
        _call(load_library().msda_backward, [grad_output.contiguous(), *inputs, *grads], ctx.sizes)
        return grads[0], None, grads[1], grads[2]
