"""What a decoder starts from, and what makes it."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

from mmengine.model import BaseModule
from torch import Tensor, nn

from bevformer_plugin.geometry import BEVGrid
from bevformer_plugin.models.bev import ProposalLimits, Proposals


@dataclass(frozen=True)
class ObjectQueries:
    """Object queries, where they begin to look, and what is believed of their objects before the decoder runs.

    Attributes:
        content: (B, M, C).
        position: (B, M, C).
        reference_points: (B, M, 3) fractions of the range.
        logits: (B, M, num_classes) scores that the decoder corrects, or a 0 where nothing is believed yet.
        boxes: (B, M, 10) network boxes without their centre that the decoder corrects, or a 0.
        num_groups: groups that the M queries consist of, one after the other and of one size. Those of a group see no
            other group, and are matched with all objects.
    """

    content: Tensor
    position: Tensor
    reference_points: Tensor
    logits: Tensor
    boxes: Tensor
    num_groups: int = field(default=1, kw_only=True)


class QuerySource(BaseModule):
    """Makes the object queries of a detection head.

    Args:
        embed_dims: channels C; the head sets it.
        num_classes: object classes; the head sets it.
        grid: the BEV grid; the head sets it.
        num_query: object queries M.
    """

    def __init__(self, embed_dims: int, num_classes: int, grid: BEVGrid, num_query: int) -> None:
        super().__init__()
        self.embed_dims = embed_dims
        self.num_classes = num_classes
        self.grid = grid
        self.num_query = num_query

    @property
    def proposal_limits(self) -> ProposalLimits | None:
        """Which proposals of the perspective head the queries start from; None if from none."""
        return None

    @abstractmethod
    def forward(self, bev_embed: Tensor, proposals: Sequence[Proposals] | None = None) -> ObjectQueries:
        """Make the queries for a (B, Q, C) BEV.

        Args:
            bev_embed: (B, Q, C).
            proposals: per sample, for a source that has ``proposal_limits``; None for the others.
        """

    @abstractmethod
    def init_branches(self, cls_branches: Sequence[nn.Sequential], reg_branches: Sequence[nn.Sequential]) -> None:
        """Initialise the last layers of the branches that correct what the queries believe."""

    @abstractmethod
    def loss(
        self, queries: ObjectQueries, gt_labels: Sequence[Tensor], gt_boxes: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """Compute the losses on the queries themselves.

        Args:
            queries: of :meth:`forward`.
            gt_labels: per sample (n,).
            gt_boxes: per sample (n, 9) metric boxes with centre z, LiDAR frame.
        """
