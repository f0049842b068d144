"""What only the compiled operator has to get right; without a compiler there is plain PyTorch and a word about it."""

import os
import subprocess
import sys

import pytest
import torch

from bevformer_plugin.ops import multi_scale_deformable_attention
from bevformer_plugin.ops.native import load_library
from tests.ops.attention_inputs import batched_inputs

needs_compiler = pytest.mark.skipif(load_library() is None, reason='no C++ compiler on this machine')


@needs_compiler
def test_inputs_in_another_memory_order():
    value, levels, locations, weights = batched_inputs(2, 6, 3, 4, [(4, 5)], 2)
    shuffled = [tensor.transpose(0, 1).contiguous().transpose(0, 1) for tensor in (value, locations, weights)]
    torch.testing.assert_close(
        multi_scale_deformable_attention(shuffled[0], levels, *shuffled[1:]),
        multi_scale_deformable_attention(value, levels, locations, weights),
    )


@pytest.mark.parametrize('compiler', ['/nowhere/c++', '/bin/false'])
def test_without_a_working_compiler_plain_pytorch_is_used_and_named_once(tmp_path, compiler):
    script = (
        'import torch\n'
        'from bevformer_plugin.ops import multi_scale_deformable_attention as attend\n'
        'case = torch.ones(1, 4, 1, 2), torch.tensor([[2, 2]]), torch.full((1, 1, 1, 1, 1, 2), 0.5)\n'
        'results = [attend(*case, torch.ones(1, 1, 1, 1, 1)) for _ in range(2)]\n'
        'print(results[1].flatten().tolist())\n'
    )
    environment = {**os.environ, 'CXX': compiler, 'XDG_CACHE_HOME': str(tmp_path)}
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    printed = done.stdout + done.stderr
    assert '[1.0, 1.0]' in printed and printed.count('runs in plain PyTorch') == 1
