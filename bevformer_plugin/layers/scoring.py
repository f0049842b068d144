"""Scoring functions: how well a query fits a key (Vaswani et al. 2017, Bahdanau et al. 2015, Luong et al. 2015)."""

import torch
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from bevformer_plugin.errors import InputError


class AttentionScore(BaseModule):
    """Scores every pair of a query and a key, separately for each head.

    ``prepare`` does the work on single queries and keys, ``compare`` that on pairs; calling the module does both.

    Args:
        num_heads: number of heads, each with parameters of its own.
        query_dims: channels d_q of a query.
        key_dims: channels d_k of a key.
    """

    def __init__(self, num_heads: int, query_dims: int, key_dims: int) -> None:
        super().__init__()
        self.num_heads, self.query_dims, self.key_dims = num_heads, query_dims, key_dims

    def prepare(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Transform queries (..., heads, Q, d_q) and keys (..., heads, K, d_k) before they are compared."""
        raise NotImplementedError

    def compare(self, query: Tensor, key: Tensor) -> Tensor:
        """Score prepared queries and keys as (..., heads, Q, K)."""
        raise NotImplementedError

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """Score queries (..., heads, Q, d_q) and keys (..., heads, K, d_k) as (..., heads, Q, K)."""
        return self.compare(*self.prepare(query, key))


class InnerProductScore(AttentionScore):
    """A scaled inner product of prepared queries and keys, which fused attention kernels can compute."""

    scale: float

    def compare(self, query: Tensor, key: Tensor) -> Tensor:
        """Compute the inner products q.k times the scale."""
        return query @ key.transpose(-1, -2) * self.scale


@MODELS.register_module()
class ScaledDotProduct(InnerProductScore):
    """The score q.k / sqrt(d) (Vaswani et al., equation 1), whose root makes the spread of scores independent of d.

    It has no parameters.

    Raises:
        InputError: if queries and keys differ in width.
    """

    def __init__(self, num_heads: int, query_dims: int, key_dims: int) -> None:
        super().__init__(num_heads, query_dims, key_dims)
        if query_dims != key_dims:
            raise InputError(
                f'a dot product needs queries and keys of one width, not {query_dims} and {key_dims}: '
                'make them alike or use BilinearScore'
            )
        self.scale = query_dims**-0.5

    def prepare(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Return queries and keys unchanged."""
        return query, key


@MODELS.register_module()
class BilinearScore(InnerProductScore):
    """The score q^T W k (Luong et al., "general") with W (d_q x d_k) per head, which allows different widths."""

    scale = 1.0

    def __init__(self, num_heads: int, query_dims: int, key_dims: int) -> None:
        super().__init__(num_heads, query_dims, key_dims)
        self.weight = nn.Parameter(torch.empty(num_heads, query_dims, key_dims))
        nn.init.normal_(self.weight, std=(query_dims * key_dims) ** -0.5)  # so that scores have unit variance

    def prepare(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Transform queries to q^T W, (..., heads, Q, d_k)."""
        return query @ self.weight, key


@MODELS.register_module()
class AdditiveScore(AttentionScore):
    """The score v^T tanh(W_q q + W_k k) (Bahdanau et al., appendix A.1.2), a network with one hidden layer per pair.

    Args:
        hidden_dims: channels of W_q q and W_k k; None takes ``key_dims``.
    """

    def __init__(self, num_heads: int, query_dims: int, key_dims: int, hidden_dims: int | None = None) -> None:
        super().__init__(num_heads, query_dims, key_dims)
        self.hidden_dims = key_dims if hidden_dims is None else hidden_dims
        self.query_weight = nn.Parameter(torch.empty(num_heads, query_dims, self.hidden_dims))
        self.key_weight = nn.Parameter(torch.empty(num_heads, key_dims, self.hidden_dims))
        self.vector = nn.Parameter(torch.empty(num_heads, self.hidden_dims))
        for parameter, fan_in in (
            (self.query_weight, query_dims),
            (self.key_weight, key_dims),
            (self.vector, self.hidden_dims),
        ):
            nn.init.normal_(parameter, std=fan_in**-0.5)

    def prepare(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Transform queries to W_q q and keys to W_k k, (..., heads, Q or K, hidden)."""
        return query @ self.query_weight, key @ self.key_weight

    def compare(self, query: Tensor, key: Tensor) -> Tensor:
        """Compute v^T tanh(q + k), which holds (..., heads, hidden, Q, K) values in memory."""
        # Keys are the last axis, so that everything runs along contiguous rows.
        hidden = torch.tanh(query.transpose(-1, -2).unsqueeze(-1) + key.transpose(-1, -2).unsqueeze(-2))
        scores = self.vector.unsqueeze(-2) @ hidden.flatten(-2)  # ...xheadsx1xQK
        return scores.squeeze(-2).unflatten(-1, hidden.shape[-2:])
