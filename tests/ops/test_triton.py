"""The Triton kernels, on machines without a GPU: run by Triton's interpreter, compiled for a GPU that is not there."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('triton', reason='Triton is not installed')

DTYPES = ('fp32', 'bf16', 'fp16')


ATTENTION = ('test_backends.py', 'test_not_finite.py', 'test_attention_arguments.py')
DEFORM_CONV = ('test_deform_conv_backends.py', 'test_deform_conv_not_finite.py')


@pytest.mark.slow
@pytest.mark.parametrize(('files', 'tests'), [(ATTENTION, 80), (DEFORM_CONV, 39)], ids=['attention', 'dcn'])
def test_in_the_interpreter(files, tests):
    """The same tests as of every backend; the interpreter is chosen when Triton is imported, so in a fresh process."""
    done = subprocess.run(
        [
            sys.executable,
            *('-m', 'pytest', '-q', '-k', 'triton', '-p', 'no:cacheprovider'),
            *(str(Path(__file__).with_name(name)) for name in files),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, 'TRITON_INTERPRET': '1'},
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.search(r'(\d+) passed', done.stdout)[1]) >= tests
    assert 'cannot run on this machine' not in done.stdout


# Arguments by their types; all others are pointers to tensors of the computed type.
INTEGERS = (
    *('rows', 'positions', 'heads', 'channels', 'levels', 'points'),
    *('outputs', 'taps', 'per_group', 'per_deform_group', 'piece', 'outputs_per_group', 'deform_groups'),
)
INTEGER_TENSORS = ('row_map', 'level_table', 'sizes')
FLOAT32 = ('grad_value', 'grad_image', 'offset', 'mask', 'grad_offset', 'grad_mask')
CONSTANTS = {'HAS_BIAS': True, 'PRECISION': 'ieee', 'WIDEN': False}  # the others are sizes of blocks
KERNELS = {
    'forward_kernel': 'attention_kernels',
    'backward_kernel': 'attention_kernels',
    'convolution_kernel': 'deform_conv_kernels',
    'input_gradient_kernel': 'deform_conv_kernels',
    'weight_gradient_kernel': 'deform_conv_kernels',
}


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('name', KERNELS)
def test_compiles_for_a_gpu(name, dtype):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = getattr(importlib.import_module(f'bevformer_plugin.ops.triton.{KERNELS[name]}'), name)
    signature = {}
    for argument in kernel.arg_names:
        if argument in INTEGER_TENSORS:
            signature[argument] = '*i32'
        elif argument in FLOAT32:
            signature[argument] = '*fp32'
        elif argument.isupper():
            signature[argument] = 'constexpr'
        elif argument in INTEGERS:
            signature[argument] = 'i32'
        else:
            signature[argument] = f'*{dtype}'
    constants = {argument: CONSTANTS.get(argument, 32) for argument in kernel.arg_names if argument.isupper()}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    compiled = triton.compile(source, target=GPUTarget('cuda', 90, 32))
    assert 'sm_90' in compiled.asm['ptx']
    adds = name in ('backward_kernel', 'input_gradient_kernel')
    assert bool(re.search(r'\b(atom|red)\.global', compiled.asm['ptx'])) == adds
