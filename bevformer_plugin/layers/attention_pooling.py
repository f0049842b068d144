"""Attention pooling: sum_i alpha_i v_i, where alpha is the softmax of a score over the keys."""

from collections.abc import Sequence

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
    """Build the mask of keys that are not padding.

    Args:
        lengths: (B,) number of real keys of each sample, which come before the padding.
        num_keys: number of keys K, including padding.

    Returns:
        (B, 1, 1, K) bool, True where a key may be attended to.
    """
    return (torch.arange(num_keys, device=lengths.device) < lengths[:, None])[:, None, None]


def causal_mask(num_queries: int, num_keys: int, device: torch.device | None = None) -> Tensor:
    """Build a mask (Q, K), True where key k is no later than query q; the last query and key are simultaneous."""
    return torch.ones(num_queries, num_keys, dtype=torch.bool, device=device).tril(num_keys - num_queries)


def attention_pooling(
    query: Tensor, key: Tensor, value: Tensor, score: AttentionScore, mask: Tensor | None = None
) -> Tensor:
    """Compute sum_i alpha_i v_i with alpha = softmax_i score(q, k_i).

    An inner product runs on PyTorch's fused attention, which never holds the scores of all pairs in memory. Other
    scores are computed for some queries at a time, and again in the backward pass, so that memory does not grow with
    the number of queries.

    Args:
        query: (B, heads, Q, d_q).
        key: (B, heads, K, d_k).
        value: (B, heads, K, d_v).
        score: scoring function with the same heads, d_q and d_k.
        mask: bool that broadcasts to (B, heads, Q, K), True where a key may be attended to.

    Returns:
        (B, heads, Q, d_v); zeros for a query that may attend to no key.
    """
    if key.shape[-2] == 0:
        return value.new_zeros(*query.shape[:-1], value.shape[-1])
    blind = None
    if mask is not None:
        blind = ~mask.any(-1, keepdim=True)
        mask = mask | blind  # since a softmax over no keys is NaN, and its gradient too
    query, key = score.prepare(query, key)
    if isinstance(score, InnerProductScore):
        output = _pool_fused(query, key, value, score, mask)
    else:
        output = _pool_in_chunks(query, key, value, score, mask)
    return output if blind is None else output.masked_fill(blind, 0.0)


def _pool_fused(query: Tensor, key: Tensor, value: Tensor, score: InnerProductScore, mask: Tensor | None) -> Tensor:
    """Pool through PyTorch's fused attention, whose kernels need one width, so channels of zeros are added."""
    dims, value_dims = query.shape[-1], value.shape[-1]
    width = max(dims, value_dims)
    query, key = (F.pad(x, (0, width - dims)) for x in (query, key))
    value = F.pad(value, (0, width - value_dims))
    output = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=score.scale)
    return output[..., :value_dims]


def _pool_in_chunks(query: Tensor, key: Tensor, value: Tensor, score: AttentionScore, mask: Tensor | None) -> Tensor:
    """Pool for as many queries at a time as memory allows."""
    per_query = key.numel()  # a score holds all channels of every key of every head and sample
    size = max(1, CHUNK_ELEMENTS // per_query)
    queries = query.split(size, dim=-2)
    masks: Sequence[Tensor | None] = [None] * len(queries)
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
    """Pool with the scores of all pairs in memory."""
    scores = score.compare(query, key)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1) @ value


@MODELS.register_module()
class MultiHeadAttentionPooling(BaseModule):
    """Attention pooling in several subspaces at once (Vaswani et al., section 3.2.2), with any score.

    Every head projects queries, keys and values by its own weights. The outputs of the heads are concatenated and
    projected once more.

    Args:
        embed_dims: channels C of queries, keys, values and output.
        num_heads: number of heads.
        score: config of the scoring function, without number of heads and channels, which are handed down to it.
        score_dims: channels of a head's queries and keys; None takes ``embed_dims / num_heads``, as for its values.
            Fewer channels may suffice, since scores only rank the keys.

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
        """Pool the values for every query.

        Args:
            query: (B, Q, C).
            key: (B, K, C).
            value: (B, K, C).
            mask: bool that broadcasts to (B, heads, Q, K), True where a key may be attended to.

        Returns:
            (B, Q, C).
        """
        pooled = attention_pooling(
            self._split(self.query_proj(query)),
            self._split(self.key_proj(key)),
            self._split(self.value_proj(value)),
            self.score,
            mask,
        )  # BxheadsxQxC/heads
        return self.output_proj(pooled.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        """Split (B, L, heads * d) into (B, heads, L, d)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
