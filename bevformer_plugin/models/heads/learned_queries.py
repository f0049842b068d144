"""Object queries that are learned, the same for every frame."""

from collections.abc import Sequence

import torch
from mmdet3d.registry import MODELS
from mmengine.model import bias_init_with_prob
from torch import Tensor, nn

from bevformer_plugin.errors import InputError
from bevformer_plugin.geometry import BEVGrid
from bevformer_plugin.layers import Float32Linear, init_transformer_weights
from bevformer_plugin.models.bev import Proposals

from .object_queries import ObjectQueries, QuerySource

OBJECT_PRIOR = 0.01  # chance that a query is an object of a class, which every class starts from


@MODELS.register_module()
class LearnedQueries(QuerySource):
    """Learns content and position of every query and predicts its reference point from the position (paper 3.1).

    Args: as :class:`QuerySource`, and
        num_groups: groups of ``num_query`` queries each that are trained side by side (Group DETR, arXiv 2207.13085).
            Every group learns to find all objects on its own, so that the decoder sees many positive queries a step;
            in eval mode the first group alone is used.

    Raises:
        InputError: if there are no queries or no groups.
    """

    def __init__(
        self, embed_dims: int, num_classes: int, grid: BEVGrid, num_query: int = 900, num_groups: int = 1
    ) -> None:
        super().__init__(embed_dims, num_classes, grid, num_query)
        if num_query < 1:
            raise InputError(f'num_query is at least 1, got {num_query}')
        if num_groups < 1:
            raise InputError(f'num_groups is at least 1, got {num_groups}')
        self.num_groups = num_groups
        self.query_embedding = nn.Embedding(num_groups * num_query, 2 * embed_dims)
        self.reference_points = Float32Linear(embed_dims, 3)

    def init_weights(self) -> None:
        """Initialise the layer of the reference points; the embeddings stay as they are."""
        super().init_weights()
        init_transformer_weights(self)

    def forward(self, bev_embed: Tensor, proposals: Sequence[Proposals] | None = None) -> ObjectQueries:
        """Repeat the queries for every sample of a (B, Q, C) BEV; in eval mode those of the first group."""
        num_groups = self.num_groups if self.training else 1
        queries = self.query_embedding.weight[: num_groups * self.num_query]
        position, content = queries.expand(len(bev_embed), -1, -1).chunk(2, dim=-1)
        nothing = torch.zeros((), device=bev_embed.device)
        return ObjectQueries(
            content=content,
            position=position,
            reference_points=self.reference_points(position).sigmoid(),
            logits=nothing,
            boxes=nothing,
            num_groups=num_groups,
        )

    def init_branches(self, cls_branches: Sequence[nn.Sequential], reg_branches: Sequence[nn.Sequential]) -> None:
        """Let every class start from a small chance (focal loss, arXiv 1708.02002, section 4.1)."""
        for branch in cls_branches:
            last = branch[-1]
            assert isinstance(last, nn.Linear)
            nn.init.constant_(last.bias, bias_init_with_prob(OBJECT_PRIOR))

    def loss(
        self, queries: ObjectQueries, gt_labels: Sequence[Tensor], gt_boxes: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """Return no losses, since the queries are trained through the decoder."""
        return {}
