"""Building the operators in C++ for CPUs, once with the machine's compiler, into the user's cache."""

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

SOURCES = [
    Path(__file__).with_name(name) for name in ('modulated_deform_conv.cpp', 'multi_scale_deformable_attention.cpp')
]
FUNCTIONS = (
    'msda_forward',
    'msda_backward',
    'dcn_sample_float32',
    'dcn_sample_bfloat16',
    'dcn_gradients_float32',
    'dcn_gradients_bfloat16',
)
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
    """Compile the sources, unless they have been compiled before with the same compiler, torch and processor."""
    version = subprocess.run([compiler, '--version'], capture_output=True, text=True, check=True).stdout
    sources = [source.read_text() for source in SOURCES]
    identity = '\n'.join([*sources, *FLAGS, version, torch.__version__, _processor()])
    library = _cache_folder() / f'operators-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.so'
    if library.exists():
        return library
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        objects = [f'{folder}/{source.stem}.o' for source in SOURCES]
        linked, runtime = f'{folder}/operators.so', _openmp_runtime() or ['-fopenmp']
        steps = [[*FLAGS, '-c', str(source), '-o', name] for source, name in zip(SOURCES, objects, strict=True)]
        for arguments in (*steps, ['-shared', *objects, *runtime, '-o', linked]):
            subprocess.run([compiler, *arguments], capture_output=True, text=True, check=True)
        os.replace(linked, library)  # in one step, since other processes may be building it too
    return library


def find_compiler() -> str | None:
    """Return the C++ compiler that the variable CXX names, or the first one found; None if there is none."""
    return os.environ.get('CXX') or shutil.which('g++') or shutil.which('c++') or shutil.which('clang++')


@lru_cache(maxsize=1)
def load_library() -> ctypes.CDLL | None:
    """Load the compiled operators; None if no compiler is found or it fails, which is logged once."""
    compiler = find_compiler()
    if compiler is None:
        print_log(
            'no C++ compiler found: each of deformable attention and deformable convolution runs in plain PyTorch, '
            'which takes longer',
            logger='current',
        )
        return None
    try:
        library = ctypes.CDLL(str(_build(compiler)))
    except (OSError, subprocess.CalledProcessError) as error:
        details = getattr(error, 'stderr', None) or error
        print_log(
            f'{compiler} cannot build deformable attention and deformable convolution; each runs in plain PyTorch: '
            f'{details}',
            logger='current',
        )
        return None
    for name in FUNCTIONS:
        getattr(library, name).restype = None
    return library


def built_library() -> ctypes.CDLL:
    """Return the library where it is known to exist, since a backend's ``supports`` is asked first."""
    library = load_library()
    assert library is not None
    return library
