"""Attention pooling: sum_i alpha_i v_i with alpha = softmax of a score over the keys."""

import torch
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from bevformer_plugin.errors import InputError
from bevformer_plugin.handed_down import with_handed_down

from .scoring import AttentionScore, InnerProductScore

CHUNK_ELEMENTS = 2**20  # values that a score may hold at a time, all heads and samples together: 4 MiB of float32


def padding_mask(lengths: Tensor, num_keys: int) -> Tensor:
    """Keys that are not padding.

    Args:
        lengths: (B,) number of real keys, which come first.
        num_keys: K.

    Returns:
        (B, 1, 1, K) bool, True where a key may be attended to.
    """
    return (torch.arange(num_keys, device=lengths.device) < lengths[:, None])[:, None, None]


def causal_mask(num_queries: int, num_keys: int, device: torch.device | None = None) -> Tensor:
    """(Q, K) bool, True where key k is no later than query q; the last query and the last key are of the same time."""
    return torch.ones(num_queries, num_keys, dtype=torch.bool, device=device).tril(num_keys - num_queries)


def attention_pooling(
    query: Tensor, key: Tensor, value: Tensor, score: AttentionScore, mask: Tensor | None = None
) -> Tensor:
    """sum_i alpha_i v_i, alpha = softmax_i score(q, k_i).

    An inner product runs on PyTorch's fused attention, which never holds a score for every pair. Other scores are
    computed for some queries at a time, in the backward pass once more, so that memory does not grow with the queries.

    Args:
        query: (B, heads, Q, d_q).
        key: (B, heads, K, d_k).
        value: (B, heads, K, d_v).
        score: of the same heads, d_q and d_k.
        mask: bool that broadcasts to (B, heads, Q, K), True where a key may be attended to.

    Returns:
        (B, heads, Q, d_v); zeros for a query that may attend to no key.
    """
    if key.shape[-2] == 0:
        return value.new_zeros(*query.shape[:-1], value.shape[-1])
    blind = None
    if mask is not None:
        blind = ~mask.any(-1, keepdim=True)
        mask = mask | blind  # a softmax over nothing is not a number, and neither is its gradient
    query, key = score.prepare(query, key)
    pool = _pool_fused if isinstance(score, InnerProductScore) else _pool_in_chunks
    output = pool(query, key, value, score, mask)
    return output if blind is None else output.masked_fill(blind, 0.0)


def _pool_fused(query: Tensor, key: Tensor, value: Tensor, score: InnerProductScore, mask: Tensor | None) -> Tensor:
    """Through PyTorch's fused attention, whose kernels want one width: channels of zeros change no inner product."""
    dims, value_dims = query.shape[-1], value.shape[-1]
    width = max(dims, value_dims)
    query, key = (F.pad(x, (0, width - dims)) for x in (query, key))
    value = F.pad(value, (0, width - value_dims))
    output = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=score.scale)
    return output[..., :value_dims]


def _pool_in_chunks(query: Tensor, key: Tensor, value: Tensor, score: AttentionScore, mask: Tensor | None) -> Tensor:
    """Query by query as memory allows."""
    per_query = key.numel()  # every key of every head and sample meets the query in all its channels
    size = max(1, CHUNK_ELEMENTS // per_query)
    queries = query.split(size, dim=-2)
    masks = [None] * len(queries)
    if mask is not None:
        masks = mask.expand(*mask.shape[:-2], query.shape[-2], -1).split(size, dim=-2)
    return torch.cat(
        [
            checkpoint(_pool, part, key, value, score, part_mask, use_reentrant=False)
            for part, part_mask in zip(queries, masks, strict=True)
        ],
        dim=-2,
    )


def _pool(query: Tensor, key: Tensor, value: Tensor, score: AttentionScore, mask: Tensor | None) -> Tensor:
    """The definition."""
    scores = score.compare(query, key)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1) @ value


@MODELS.register_module()
class MultiHeadAttentionPooling(BaseModule):
    """Attention pooling in several subspaces at once (Vaswani et al., section 3.2.2), with any score.

    Every head sees queries, keys and values through projections of its own; the heads' outputs are joined and
    projected once more.

    Args:
        embed_dims: channels C of queries, keys, values and output.
        num_heads: heads.
        score: config of the score, without heads and widths.
        score_dims: channels of a head's queries and keys; ``embed_dims / num_heads``, as its values, when None. Scores
            only rank keys: they get by with fewer channels than the values that are carried on.

    Raises:
        InputError: if ``embed_dims`` is not divisible by ``num_heads``.
    """

    def __init__(self, embed_dims: int, num_heads: int, score: dict, score_dims: int | None = None) -> None:
        super().__init__()
        if embed_dims % num_heads:
            raise InputError(f'embed_dims={embed_dims} is not divisible by num_heads={num_heads}')
        self.num_heads = num_heads
        score_dims = embed_dims // num_heads if score_dims is None else score_dims
        self.score = MODELS.build(
            with_handed_down(
                score,
                {'num_heads': num_heads, 'query_dims': score_dims, 'key_dims': score_dims},
                'score',
                'the attention',
            )
        )
        self.query_proj = nn.Linear(embed_dims, num_heads * score_dims)
        self.key_proj = nn.Linear(embed_dims, num_heads * score_dims)
        self.value_proj = nn.Linear(embed_dims, embed_dims)
        self.output_proj = nn.Linear(embed_dims, embed_dims)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """Pool.

        Args:
            query: (B, Q, C).
            key: (B, K, C).
            value: (B, K, C).
            mask: bool that broadcasts to (B, heads, Q, K), True where a key may be attended to.

        Returns:
            (B, Q, C).
        """
        heads = (
            self._split(proj(x))
            for proj, x in ((self.query_proj, query), (self.key_proj, key), (self.value_proj, value))
        )
        pooled = attention_pooling(*heads, self.score, mask)  # BxheadsxQxC/heads
        return self.output_proj(pooled.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        """(B, L, heads * d) to (B, heads, L, d)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
