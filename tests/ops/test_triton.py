"""The Triton kernels, on machines without a GPU: run by Triton's interpreter, compiled for a GPU that is not there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('triton', reason='Triton is not installed')

DTYPES = ('fp32', 'bf16', 'fp16')


def test_in_the_interpreter():
    """The same tests as of every backend; the interpreter is chosen when Triton is imported, so in a fresh process."""
    done = subprocess.run(
        [
            sys.executable,
            '-m',
            'pytest',
            str(Path(__file__).with_name('test_backends.py')),
            str(Path(__file__).with_name('test_not_finite.py')),
            str(Path(__file__).with_name('test_attention_arguments.py')),
            '-q',
            '-k',
            'triton',
            '-p',
            'no:cacheprovider',
        ],
        capture_output=True,
        text=True,
        env={**os.environ, 'TRITON_INTERPRET': '1'},
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.search(r'(\d+) passed', done.stdout)[1]) >= 80
    assert 'cannot run on this machine' not in done.stdout


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('name', ['forward_kernel', 'backward_kernel'])
def test_compiles_for_a_gpu(name, dtype):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from bevformer_plugin.ops.triton import kernels

    kernel = getattr(kernels, name)
    signature = {}
    for argument in kernel.arg_names:
        if argument in ('row_map', 'level_table'):
            signature[argument] = '*i32'
        elif argument == 'grad_value':
            signature[argument] = '*fp32'
        elif argument.isupper():
            signature[argument] = 'constexpr'
        elif argument in ('rows', 'positions', 'heads', 'channels', 'levels', 'points'):
            signature[argument] = 'i32'
        else:
            signature[argument] = f'*{dtype}'
    source = ASTSource(fn=kernel, signature=signature, constexprs={'BLOCK_ROWS': 32, 'BLOCK_CHANNELS': 32})
    compiled = triton.compile(source, target=GPUTarget('cuda', 90, 32))
    assert 'sm_90' in compiled.asm['ptx']
    assert ('atom.global' in compiled.asm['ptx'] or 'red.global' in compiled.asm['ptx']) == (name == 'backward_kernel')
