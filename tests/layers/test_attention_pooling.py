"""Attention pooling against its definition, with masks, in chunks, and several heads."""

import importlib

import pytest
import torch
from mmdet3d.registry import MODELS

from bevformer_plugin.layers import MultiHeadAttentionPooling, attention_pooling, causal_mask, padding_mask
from tests.layers.made_up import made_up

MODULE = importlib.import_module('bevformer_plugin.layers.attention_pooling')
SCORES = ('ScaledDotProduct', 'BilinearScore', 'AdditiveScore')


def make_score(kind: str, width: int = 3) -> torch.nn.Module:
    torch.manual_seed(0)
    return MODELS.build(dict(type=kind, num_heads=2, query_dims=width, key_dims=width)).double()


def query_by_query(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    score: torch.nn.Module,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """sum_i alpha_i v_i, one query at a time over the keys it may see."""
    scores = score(query, key)
    allowed = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask.expand_as(scores)
    output = torch.zeros(*query.shape[:-1], value.shape[-1], dtype=torch.float64)
    for b, h, q in torch.cartesian_prod(*(torch.arange(n) for n in query.shape[:3])).tolist():
        seen = allowed[b, h, q]
        weights = scores[b, h, q][seen].exp()
        output[b, h, q] = (weights / weights.sum())[:, None].mul(value[b, h][seen]).sum(0)
    return output


@pytest.fixture(params=[1, 8, 2**22])
def chunk_elements(request, monkeypatch):
    """One query at a time, some, and all."""
    monkeypatch.setattr(MODULE, 'CHUNK_ELEMENTS', request.param * 30)
    return request.param


@pytest.mark.parametrize('kind', SCORES)
@pytest.mark.parametrize('value_dims', [3, 7, 2])
@torch.no_grad()
def test_against_the_definition(kind, value_dims, chunk_elements):
    score = make_score(kind)
    query, key, value = made_up(2, 2, 9, 3), made_up(2, 2, 5, 3, seed=1), made_up(2, 2, 5, value_dims, seed=2)
    output = attention_pooling(query, key, value, score)
    torch.testing.assert_close(output, query_by_query(query, key, value, score))


@pytest.mark.parametrize('kind', SCORES)
@pytest.mark.parametrize(
    'mask',
    [padding_mask(torch.tensor([5, 2]), 5), causal_mask(9, 5), causal_mask(9, 5)[None, None].repeat(2, 2, 1, 1)],
    ids=['padding', 'causal', 'causal of every head'],
)
def test_masks(kind, mask, chunk_elements):
    score = make_score(kind)
    query, key, value = (
        x.requires_grad_() for x in (made_up(2, 2, 9, 3), made_up(2, 2, 5, 3, seed=1), made_up(2, 2, 5, 4, seed=2))
    )
    output = attention_pooling(query, key, value, score, mask)
    expected = query_by_query(query, key, value, score, mask)
    torch.testing.assert_close(output, expected)
    grads = [torch.autograd.grad(x.sin().sum(), (query, key, value), retain_graph=True) for x in (output, expected)]
    for ours, slow in zip(*grads, strict=True):
        torch.testing.assert_close(ours, slow)


def test_masks_are_what_they_say():
    assert padding_mask(torch.tensor([3, 0, 1]), 3)[:, 0, 0].tolist() == [
        [True, True, True],
        [False, False, False],
        [True, False, False],
    ]
    assert causal_mask(3, 3).tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    assert causal_mask(2, 4).tolist() == [[True, True, True, False], [True, True, True, True]]


@pytest.mark.parametrize('kind', SCORES)
def test_a_query_without_keys_gets_zeros_and_no_gradient(kind):
    score = make_score(kind)
    query, key, value = (made_up(2, 2, n, 3, seed=n).requires_grad_() for n in (4, 5, 5))
    output = attention_pooling(query, key, value, score, padding_mask(torch.tensor([5, 0]), 5))
    assert output[0].abs().min() > 0
    assert output[1].abs().max() == 0
    for grad in torch.autograd.grad(output.sum(), (query, key, value), allow_unused=True):
        assert grad.isfinite().all()
        assert grad[1].abs().max() == 0
    none = attention_pooling(query, key[:, :, :0], value[:, :, :0], score)
    assert none.shape == (2, 2, 4, 3)
    assert none.abs().max() == 0


@pytest.mark.parametrize('kind', SCORES)
def test_gradients(kind, chunk_elements):
    score = make_score(kind)
    inputs = [
        x.requires_grad_() for x in (made_up(1, 2, 3, 3), made_up(1, 2, 4, 3, seed=1), made_up(1, 2, 4, 5, seed=2))
    ]
    assert torch.autograd.gradcheck(lambda q, k, v: attention_pooling(q, k, v, score), inputs)


def largest_tensor(work) -> int:
    """Elements of the largest tensor that a piece of work makes, also in its backward pass."""

    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                self.elements = max(self.elements, result.untyped_storage().nbytes() // result.element_size())
            return result

    with Largest() as mode:
        work()
    return mode.elements


@pytest.mark.parametrize('kind', SCORES)
def test_no_score_for_every_pair_is_held(kind, monkeypatch):
    monkeypatch.setattr(MODULE, 'CHUNK_ELEMENTS', 50_000)
    score = make_score(kind, width=8).float()
    query, key, value = (torch.randn(1, 2, n, 8, requires_grad=True) for n in (700, 600, 600))
    largest = largest_tensor(lambda: attention_pooling(query, key, value, score).sum().backward())
    assert largest <= 50_000 < 2 * 700 * 600


@pytest.mark.parametrize('score', [dict(type=kind) for kind in SCORES], ids=SCORES)
@pytest.mark.parametrize('score_dims', [None, 2])
@torch.no_grad()
def test_several_heads(score, score_dims, randomize):
    pooling = randomize(MultiHeadAttentionPooling(12, 3, score, score_dims)).double()
    width = score_dims or 4
    assert pooling.query_proj.out_features == pooling.key_proj.out_features == 3 * width
    query, key, value = made_up(2, 5, 12), made_up(2, 7, 12, seed=1), made_up(2, 7, 12, seed=2)
    mask = padding_mask(torch.tensor([7, 4]), 7)
    output = pooling(query, key, value, mask)
    for sample in range(2):
        pooled = []
        for head in range(3):
            rows, values = slice(head * width, (head + 1) * width), slice(head * 4, (head + 1) * 4)
            q = pooling.query_proj(query[sample])[:, rows]
            k = pooling.key_proj(key[sample])[:, rows]
            v = pooling.value_proj(value[sample])[:, values]
            # Every head at every place, of which the head's own is taken.
            scores = pooling.score(q.expand(3, -1, -1), k.expand(3, -1, -1))[head]
            scores = scores.masked_fill(~mask[sample, 0], -torch.inf)
            pooled.append(scores.softmax(-1) @ v)
        torch.testing.assert_close(output[sample], pooling.output_proj(torch.cat(pooled, dim=-1)))


def test_heads_must_divide_the_channels():
    with pytest.raises(ValueError, match='embed_dims=16 is not divisible by num_heads=3'):
        MultiHeadAttentionPooling(16, 3, dict(type='ScaledDotProduct'))
