"""Scoring functions against their formulas, pair by pair."""

import math

import pytest
import torch
from mmdet3d.registry import MODELS

from bevformer_plugin.layers import AdditiveScore, BilinearScore, ScaledDotProduct
from tests.layers.made_up import made_up


def pair_by_pair(score: torch.nn.Module, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Scores of (heads, Q, d_q) and (heads, K, d_k) as the formulas say."""
    result = torch.zeros(query.shape[0], query.shape[1], key.shape[1], dtype=torch.float64)
    for head in range(query.shape[0]):
        for i, q in enumerate(query[head]):
            for j, k in enumerate(key[head]):
                if isinstance(score, ScaledDotProduct):
                    result[head, i, j] = sum(a * b for a, b in zip(q, k, strict=True)) / math.sqrt(len(q))
                elif isinstance(score, BilinearScore):
                    result[head, i, j] = torch.einsum('a,ab,b', q, score.weight[head], k)
                else:
                    hidden = torch.tanh(score.query_weight[head].T @ q + score.key_weight[head].T @ k)
                    result[head, i, j] = score.vector[head] @ hidden
    return result


def test_worked_example():
    """The guide's: q = (1, 0.5), k1 = (1, 0.5), k2 = (0, 1)."""
    query, keys = torch.tensor([[[1.0, 0.5]]]), torch.tensor([[[1.0, 0.5], [0.0, 1.0]]])
    scores = ScaledDotProduct(1, 2, 2)(query, keys).flatten()
    torch.testing.assert_close(scores, torch.tensor([1.25, 0.5]) / 2**0.5)
    assert [round(score, 2) for score in scores.tolist()] == [0.88, 0.35]


@pytest.mark.parametrize(
    ('kind', 'widths'),
    [('ScaledDotProduct', (5, 5)), ('BilinearScore', (5, 3)), ('AdditiveScore', (5, 3)), ('AdditiveScore', (2, 2))],
)
@torch.no_grad()
def test_against_the_formula(kind, widths):
    score = MODELS.build(dict(type=kind, num_heads=2, query_dims=widths[0], key_dims=widths[1])).double()
    query, key = made_up(3, 2, 4, widths[0]), made_up(3, 2, 6, widths[1], seed=1)
    scores = score(query, key)
    assert scores.shape == (3, 2, 4, 6)
    for sample in range(3):
        torch.testing.assert_close(scores[sample], pair_by_pair(score, query[sample], key[sample]))


@pytest.mark.parametrize('make', [lambda: BilinearScore(2, 4, 3), lambda: AdditiveScore(2, 4, 3, hidden_dims=5)])
def test_gradients(make):
    score = make().double()
    query, key = made_up(2, 3, 4).requires_grad_(), made_up(2, 2, 3, seed=1).requires_grad_()
    parameters = dict(score.named_parameters())

    def scores(query: torch.Tensor, key: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(score, dict(zip(parameters, values, strict=True)), (query, key))

    assert torch.autograd.gradcheck(scores, (query, key, *parameters.values()))


def test_scores_start_with_unit_spread():
    torch.manual_seed(0)
    for score in (ScaledDotProduct(2, 64, 64), BilinearScore(2, 64, 64)):
        spread = score(torch.randn(2, 500, 64), torch.randn(2, 500, 64)).std().item()
        assert spread == pytest.approx(1, abs=0.1), type(score).__name__


def test_a_dot_product_of_two_widths_is_refused():
    with pytest.raises(ValueError, match='one width, not 4 and 3'):
        ScaledDotProduct(2, 4, 3)
