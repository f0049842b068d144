"""Multi-scale deformable attention against a plain loop and numerical gradients."""

import numpy as np
import pytest
import torch

from bevformer_plugin.ops import MMCV_EXT, multi_scale_deformable_attention
from tests.ops.attention_inputs import batched_inputs

SIZES = (2, 4, 3, 2, [(4, 5), (2, 3), (1, 1)], 2)  # samples, queries, heads, channels, levels, points


def loop_attention(value, shapes, locations, weights):
    """The definition, one corner of one sampling point at a time."""
    batch, queries, heads, _, points, _ = locations.shape
    result = torch.zeros(batch, queries, heads, value.shape[-1], dtype=value.dtype)
    start = 0
    for level, (height, width) in enumerate(shapes.tolist()):
        grid = value[:, start : start + height * width].unflatten(1, (height, width))
        start += height * width
        for b, q, h, p in torch.cartesian_prod(*(torch.arange(n) for n in (batch, queries, heads, points))).tolist():
            x, y = (locations[b, q, h, level, p] * torch.tensor([width, height]) - 0.5).tolist()
            for row in (int(np.floor(y)), int(np.floor(y)) + 1):
                for col in (int(np.floor(x)), int(np.floor(x)) + 1):
                    if 0 <= row < height and 0 <= col < width:
                        share = (1 - abs(y - row)) * (1 - abs(x - col))
                        result[b, q, h] += weights[b, q, h, level, p] * share * grid[b, row, col, h]
    return result.flatten(2)


def test_equals_a_plain_loop():
    case = batched_inputs(*SIZES, dtype=torch.float64)
    torch.testing.assert_close(multi_scale_deformable_attention(*case), loop_attention(*case))


def test_gradients_are_numerically_right():
    value, shapes, locations, weights = batched_inputs(*SIZES, dtype=torch.float64)
    inputs = [x.requires_grad_() for x in (value, locations, weights)]
    assert torch.autograd.gradcheck(lambda v, s, a: multi_scale_deformable_attention(v, shapes, s, a), inputs)


@pytest.mark.skipif(MMCV_EXT == 'compiled', reason='the compiled operator runs on a GPU only')
def test_mmcv_function_calls_the_operator_forward_and_backward():
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

    value, shapes, locations, weights = batched_inputs(*SIZES, dtype=torch.float64)
    inputs = [x.requires_grad_() for x in (value, locations, weights)]
    starts = torch.tensor([0, 20, 26])
    assert torch.autograd.gradcheck(
        lambda v, s, a: MultiScaleDeformableAttnFunction.apply(v, shapes, starts, s, a, 64), inputs
    )


def test_bfloat16_autocast_stays_close():
    value, shapes, locations, weights = batched_inputs(*SIZES)
    with torch.autocast('cpu', torch.bfloat16):
        result = multi_scale_deformable_attention(value.bfloat16(), shapes, locations, weights)
    torch.testing.assert_close(
        result.float(), multi_scale_deformable_attention(value, shapes, locations, weights), atol=3e-2, rtol=3e-2
    )
