"""Multi-scale deformable attention in C++ for CPUs, compiled once with the machine's compiler and cached."""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

import torch
from mmengine.logging import print_log
from torch import Tensor

from bevformer_plugin.ops.attention_arguments import rows_of_maps

SOURCE = Path(__file__).with_name('multi_scale_deformable_attention.cpp')
FLAGS = ('-O3', '-march=native', '-fno-math-errno', '-fno-trapping-math', '-fopenmp', '-fPIC', '-std=c++17')


def _openmp_runtime() -> list[str]:
    """Find torch's own OpenMP runtime, to link with it so that both share one pool of threads."""
    return [str(path) for path in sorted((Path(torch.__file__).parent / 'lib').glob('libgomp*.so*'))[:1]]


def _cache_folder() -> Path:
    return Path(os.environ.get('XDG_CACHE_HOME', Path.home() / '.cache')) / 'bevformer_plugin'


def _processor() -> str:
    """Return the features of the processor, on which -march=native depends."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(('flags', 'Features'))), platform.machine())


def _build(compiler: str) -> Path:
    """Compile the source, unless it has been compiled before with the same compiler, torch and processor."""
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
        os.replace(linked, library)  # in one step, since other processes may be building it too
    return library


def find_compiler() -> str | None:
    """Return the C++ compiler that the variable CXX names, or the first one found; None if there is none."""
    return os.environ.get('CXX') or shutil.which('g++') or shutil.which('c++') or shutil.which('clang++')


@lru_cache(maxsize=1)
def load_library() -> ctypes.CDLL | None:
    """Load the compiled operator; None if no compiler is found or it fails, which is logged once."""
    compiler = find_compiler()
    if compiler is None:
        print_log(
            'no C++ compiler found: multi-scale deformable attention runs in plain PyTorch, which takes longer',
            logger='current',
        )
        return None
    try:
        library = ctypes.CDLL(str(_build(compiler)))
    except (OSError, subprocess.CalledProcessError) as error:
        details = getattr(error, 'stderr', None) or error
        print_log(
            f'{compiler} cannot build multi-scale deformable attention; it runs in plain PyTorch: {details}',
            logger='current',
        )
        return None
    library.msda_forward.restype = library.msda_backward.restype = None
    return library


def _built_library() -> ctypes.CDLL:
    """Return the library, which exists, since :func:`supports` is asked first."""
    library = load_library()
    assert library is not None
    return library


def supports(device: str, dtype: torch.dtype) -> bool:
    """Tell whether the operator can compute: on CPUs if it can be built; half precision is computed in float32."""
    return device == 'cpu' and dtype in (torch.float32, torch.bfloat16, torch.float16) and load_library() is not None


def forward(
    value: Tensor, shapes: list[list[int]], sampling_locations: Tensor, attention_weights: Tensor, lengths: Tensor
) -> Tensor:
    """Compute the output (R, heads * C).

    The arguments are those of :func:`.multi_scale_deformable_attention.ragged_deformable_attention`, the shapes as
    numbers.
    """
    tensors = [tensor.float().contiguous() for tensor in (value, sampling_locations, attention_weights)]
    output = tensors[0].new_empty(len(sampling_locations), value.shape[2] * value.shape[3])
    sizes = [*value.shape, *attention_weights.shape[2:]]
    _call(_built_library().msda_forward, [*tensors, output], shapes, lengths, len(output), sizes)
    return output.to(value.dtype)


def backward(
    grad_output: Tensor,
    value: Tensor,
    shapes: list[list[int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
    lengths: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of value, locations and weights."""
    tensors = [tensor.float().contiguous() for tensor in (grad_output, value, sampling_locations, attention_weights)]
    grads = [torch.zeros_like(tensors[1]), torch.empty_like(tensors[2]), torch.empty_like(tensors[3])]
    sizes = [*value.shape, *attention_weights.shape[2:]]
    _call(_built_library().msda_backward, [*tensors, *grads], shapes, lengths, len(grad_output), sizes)
    return grads[0].to(value.dtype), grads[1].to(value.dtype), grads[2].to(value.dtype)


def _call(
    function: Callable[..., None],
    tensors: list[Tensor],
    shapes: list[list[int]],
    lengths: Tensor,
    rows: int,
    sizes: list[int],
) -> None:
    """Call a function of the library with the addresses of its arrays and the sizes of the tensors.

    The arrays are the shapes of the levels, the first row of every list, and the tensors.
    """
    levels = torch.tensor(shapes, dtype=torch.int64)
    first_rows = torch.tensor([0, *accumulate(rows_of_maps(lengths, rows))], dtype=torch.int64)
    pointers = [tensor.data_ptr() for tensor in (levels, first_rows, *tensors)]
    function(*map(ctypes.c_void_p, pointers), *map(ctypes.c_int64, sizes))
