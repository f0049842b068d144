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
    *('outputs', 'per_group', 'per_deform_group', 'piece', 'outputs_per_group'),
)
INTEGER_TENSORS = ('row_map', 'level_table')
FLOAT32 = ('grad_value', 'grad_image', 'offset', 'mask', 'grad_offset', 'grad_mask')
KERNELS = {
    'forward_kernel': 'attention_kernels',
    'backward_kernel': 'attention_kernels',
    'convolution_kernel': 'deform_conv_kernels',
    'input_gradient_kernel': 'deform_conv_kernels',
    'weight_gradient_kernel': 'deform_conv_kernels',
}


SHARED_MEMORY = 227 * 1024  # bytes that a program can have on sm_90


def compiled(name: str, dtype: str, aligned: bool, precision: str = 'ieee') -> object:
    """Compile a kernel for sm_90, as it is launched for the widest layers of the released configs.

    Args:
        name: of the kernel.
        dtype: of the computed type.
        aligned: whether all pointers and sizes are multiples of 16, as those of the released configs; then whole
            vectors are loaded at once, and products are tensor cores'.
        precision: of float32's products.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    module = importlib.import_module(f'bevformer_plugin.ops.triton.{KERNELS[name]}')
    kernel, never_aligned = getattr(module, name), getattr(module, 'SIZES', ())
    constants, options = {'BLOCK_ROWS': 32, 'BLOCK_CHANNELS': 32}, {}  # of attention
    if KERNELS[name] == 'deform_conv_kernels':
        launch = importlib.import_module('bevformer_plugin.ops.triton.deform_conv_launch')
        constants = {
            **{'HAS_BIAS': True, 'PRECISION': precision, 'WIDEN': False, 'BLOCK_ROWS': launch.BLOCK_ROWS},
            **{'BLOCK_CHANNELS': launch.MOST_CHANNELS, 'BLOCK_OUTPUTS': launch.MOST_OUTPUTS},
        }
        options = launch.OPTIONS
    signature = {}
    for argument in kernel.arg_names:
        if argument in INTEGER_TENSORS:
            signature[argument] = '*i32'
        elif argument in FLOAT32:
            signature[argument] = '*fp32'
        elif argument.isupper():
            signature[argument] = 'constexpr'
        elif argument in INTEGERS or argument in never_aligned:
            signature[argument] = 'i32'
        else:
            signature[argument] = f'*{dtype}'
    multiples = {
        (index,): [['tt.divisibility', 16]]
        for index, argument in enumerate(kernel.arg_names)
        if aligned and signature[argument] != 'constexpr' and argument not in never_aligned
    }
    source = ASTSource(
        fn=kernel,
        signature=signature,
        constexprs={argument: constants[argument] for argument in kernel.arg_names if argument.isupper()},
        attrs=multiples,
    )
    return triton.compile(source, target=GPUTarget('cuda', 90, 32), options=options)


@pytest.mark.parametrize(('dtype', 'precision'), [('fp32', 'tf32'), *((dtype, 'ieee') for dtype in DTYPES)])
@pytest.mark.parametrize('name', KERNELS)
def test_compiles_for_a_gpu_and_fits_into_it(name, dtype, precision):
    for aligned in (False, True):
        kernel = compiled(name, dtype, aligned, precision)
        assert 'sm_90' in kernel.asm['ptx']
        # Gradients are added up without an order among the additions, which would wait for each other.
        additions = re.findall(r'\b(?:atom|red)\.\S+', kernel.asm['ptx'])
        assert bool(additions) == (name in ('backward_kernel', 'input_gradient_kernel'))
        assert all('.relaxed.' in addition for addition in additions), additions
        assert kernel.metadata.shared <= SHARED_MEMORY
