"""Object queries of two kinds: learned ones, and ones where the perspective head has found objects."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from mmdet3d.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from bevformer_plugin.errors import InputError
from bevformer_plugin.geometry import BEVGrid, normalize_boxes
from bevformer_plugin.models.bev import ProposalLimits, Proposals

from .learned_queries import LearnedQueries
from .object_queries import ObjectQueries

SHAPE = [2, 3, 5, 6, 7]  # log length, width and height, sine and cosine of the yaw in a network box


@MODELS.register_module()
class PerspectiveProposals(LearnedQueries):
    """Puts queries at the objects that :class:`PerspectiveHead` proposes beside those of :class:`LearnedQueries`.

    These are the two stages that the paper of BEVFormer v2 (arXiv 2211.10439) describes: reference points that are
    those of the images at hand, beside learned ones that are those of the data set. Its code was never released and
    no published checkpoint has it, so that number, thresholds and encoding are this repository's own.

    A proposal gives its query the reference point, a position made of that, and a content made of class, score, size
    and direction. The decoder has to find the object again: it believes neither the class nor the size. No gradient
    flows through a proposal into the perspective head, which learns from its own losses alone; the layers that encode
    proposals learn through the decoder. If there are fewer than ``num_proposals``, learned queries take the places
    that are left. The proposals are the same in every group of queries, as each group has to find all objects.

    Args: as :class:`LearnedQueries`, whose ``num_query`` counts the learned queries alone, and
        num_proposals: queries for proposals, in every group; the proposals with the best scores get one.
        min_score: least score of a proposal, from 0 to 1.
        max_overlap: see :class:`ProposalLimits`.

    Raises:
        InputError: if there are no queries, groups or proposals, or a limit is outside [0, 1].
    """

    def __init__(
        self,
        embed_dims: int,
        num_classes: int,
        grid: BEVGrid,
        num_query: int = 900,
        num_groups: int = 1,
        num_proposals: int = 100,
        min_score: float = 0.05,
        max_overlap: float = 0.75,
    ) -> None:
        super().__init__(embed_dims, num_classes, grid, num_query, num_groups)
        if num_proposals < 1:
            raise InputError(
                f'num_proposals is at least 1, got {num_proposals}: without proposals take LearnedQueries'
            )
        for name, limit in (('min_score', min_score), ('max_overlap', max_overlap)):
            if not 0 <= limit <= 1:
                raise InputError(f'{name} of PerspectiveProposals lies in [0, 1], got {limit}')
        self.limits = ProposalLimits(num_proposals, min_score, max_overlap)
        self.spare_embedding = nn.Embedding(num_proposals, 2 * embed_dims)
        self.class_embedding = nn.Embedding(num_classes, embed_dims)
        self.shape = nn.Linear(len(SHAPE) + 1, embed_dims)
        self.position = nn.Sequential(nn.Linear(3, embed_dims), nn.ReLU(), nn.Linear(embed_dims, embed_dims))

    @property
    def proposal_limits(self) -> ProposalLimits:
        """Which proposals get a query."""
        return self.limits

    def forward(self, bev_embed: Tensor, proposals: Sequence[Proposals] | None = None) -> ObjectQueries:
        """Make the queries of a (B, Q, C) BEV and of each sample's proposals; see :class:`LearnedQueries`.

        Every group consists of its learned queries, then one for each proposal, then spare ones.

        Raises:
            InputError: without proposals.
        """
        if proposals is None:
            raise InputError(
                'PerspectiveProposals makes queries of what the perspective head proposes, and was given none: encode '
                'frames by the detector, and give the head what it returns'
            )
        learned = super().forward(bev_embed)
        content, position, reference_points = self._proposed(proposals)
        return replace(
            learned,
            content=_in_each_group(learned.content, content, learned.num_groups),
            position=_in_each_group(learned.position, position, learned.num_groups),
            reference_points=_in_each_group(learned.reference_points, reference_points, learned.num_groups),
        )

    def _proposed(self, proposals: Sequence[Proposals]) -> tuple[Tensor, Tensor, Tensor]:
        """Encode the proposals of B samples, giving (B, K, C) content and position and (B, K, 3) reference points."""
        centers, shapes, labels = (torch.stack(parts) for parts in zip(*map(self._padded, proposals), strict=True))
        counts = torch.tensor([len(one.scores) for one in proposals], device=centers.device)
        is_proposal = (torch.arange(self.limits.max_num, device=centers.device) < counts[:, None])[..., None]  # BxKx1
        low, high = centers.new_tensor(self.grid.point_cloud_range).split(3)
        places = ((centers - low) / (high - low)).clamp(0, 1)
        spare_position, spare_content = self.spare_embedding.weight.chunk(2, dim=-1)
        content = self.class_embedding(labels) + self.shape(shapes)
        return (
            torch.where(is_proposal, content, spare_content),
            torch.where(is_proposal, self.position(places), spare_position),
            torch.where(is_proposal, places, self.reference_points(spare_position).sigmoid()),
        )

    def _padded(self, proposals: Proposals) -> tuple[Tensor, Tensor, Tensor]:
        """Return (K, 3) centres, (K, 6) shapes with scores and (K,) labels, with zeros after the proposals."""
        boxes = normalize_boxes(F.pad(proposals.boxes, (0, 2)))  # of a velocity nothing is known
        missing = self.limits.max_num - len(boxes)
        shapes = torch.cat([boxes[:, SHAPE], proposals.scores[:, None]], dim=1)
        centers, shapes = (F.pad(values, (0, 0, 0, missing)) for values in (proposals.boxes[:, :3], shapes))
        return centers, shapes, F.pad(proposals.labels, (0, missing))


def _in_each_group(learned: Tensor, proposed: Tensor, num_groups: int) -> Tensor:
    """Append (B, K, X) values of proposals to those of each group, which are (B, num_groups * M, X) together."""
    groups = learned.unflatten(1, (num_groups, -1))
    return torch.cat([groups, proposed[:, None].expand(-1, num_groups, -1, -1)], dim=2).flatten(1, 2)
