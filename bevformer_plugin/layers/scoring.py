"""Scoring functions: how well a query fits a key (Vaswani et al. 2017, Bahdanau et al. 2015, Luong et al. 2015)."""

import torch
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from bevformer_plugin.errors import InputError


class AttentionScore(BaseModule):
    """A score for every pair of a query and a key, head by head.

    ``prepare`` does the work that needs no pairs, ``compare`` the rest; calling the module does both.

    Args:
        num_heads: heads, each with parameters of its own.
        query_dims: channels d_q of a query.
        key_dims: channels d_k of a key.
    """

    def __init__(self, num_heads: int, query_dims: int, key_dims: int) -> None:
        super().__init__()
        self.num_heads, self.query_dims, self.key_dims = num_heads, query_dims, key_dims

    def prepare(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """(..., heads, Q, d_q) and (..., heads, K, d_k), each alone, to what is compared."""
        raise NotImplementedError

    def compare(self, query: Tensor, key: Tensor) -> Tensor:
        """Prepared queries and keys to (..., heads, Q, K)."""
        raise NotImplementedError

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """(..., heads, Q, d_q) and (..., heads, K, d_k) to scores (..., heads, Q, K)."""
        return self.compare(*self.prepare(query, key))


class InnerProductScore(AttentionScore):
    """A score that is a scaled inner product once both sides are prepared; fused attention kernels compute it."""

    scale: float

    def compare(self, query: Tensor, key: Tensor) -> Tensor:
        """q.k times the scale."""
        return query @ key.transpose(-1, -2) * self.scale


@MODELS.register_module()
class ScaledDotProduct(InnerProductScore):
    """q.k / sqrt(d) (Vaswani et al., equation 1): no parameters; the root keeps the scores' spread free of d.

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
        """Nothing to do."""
        return query, key


@MODELS.register_module()
class BilinearScore(InnerProductScore):
    """q^T W k (Luong et al., "general"): W (d_q x d_k) per head lets the two differ in width and meaning."""

    scale = 1.0

    def __init__(self, num_heads: int, query_dims: int, key_dims: int) -> None:
        super().__init__(num_heads, query_dims, key_dims)
        self.weight = nn.Parameter(torch.empty(num_heads, query_dims, key_dims))
        nn.init.normal_(self.weight, std=(query_dims * key_dims) ** -0.5)  # scores of unit spread

    def prepare(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """q^T W, (..., heads, Q, d_k)."""
        return query @ self.weight, key


@MODELS.register_module()
class AdditiveScore(AttentionScore):
    """v^T tanh(W_q q + W_k k) (Bahdanau et al., appendix A.1.2): a network with one hidden layer for every pair.

    Args:
        hidden_dims: channels of W_q q and W_k k; ``key_dims`` when None.
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
        """W_q q and W_k k, (..., heads, Q or K, hidden)."""
        return query @ self.query_weight, key @ self.key_weight

    def compare(self, query: Tensor, key: Tensor) -> Tensor:
        """v^T tanh(q + k); holds (..., heads, hidden, Q, K) values."""
        # Keys last: everything then runs along contiguous rows.
        hidden = torch.tanh(query.transpose(-1, -2).unsqueeze(-1) + key.transpose(-1, -2).unsqueeze(-2))
        scores = self.vector.unsqueeze(-2) @ hidden.flatten(-2)  # ...xheadsx1xQK
        return scores.squeeze(-2).unflatten(-1, hidden.shape[-2:])
