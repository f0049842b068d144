"""Which head of a detector proposes objects that another one starts from."""

from mmengine.model import ModuleDict

from bevformer_plugin.errors import InputError
from bevformer_plugin.models.bev import ProposalLimits
from bevformer_plugin.models.heads import BEVHead, PerspectiveHead


def find_proposing_head(heads: ModuleDict) -> tuple[str, ProposalLimits] | None:
    """Find the head whose proposals another one starts from, and which of them that one takes; None if none does.

    Raises:
        InputError: if none or several of the heads could propose, or the two know other numbers of classes.
    """
    taking = [(name, head) for name, head in heads.items() if isinstance(head, BEVHead) and head.proposal_limits]
    if not taking:
        return None
    name, head = taking[0]
    proposing = [other for other, candidate in heads.items() if isinstance(candidate, PerspectiveHead)]
    if len(proposing) != 1:
        found = f'has {len(proposing)} of them ({", ".join(proposing)})' if proposing else 'has none'
        raise InputError(
            f'model.heads.{name}.queries of type PerspectiveProposals starts from the objects of one PerspectiveHead, '
            f'and model.heads {found}: give one, such as heads.perspective of configs/bevformer_v2, or set '
            f'model.heads.{name}.queries.type=LearnedQueries'
        )
    limits, classes = head.proposal_limits, [getattr(heads[one], 'num_classes', None) for one in (name, proposing[0])]
    if classes[0] != classes[1]:
        raise InputError(
            f'model.heads.{name} knows {classes[0]} classes and model.heads.{proposing[0]}, from whose objects it '
            f'starts, {classes[1]}: set num_classes of both to the same'
        )
    assert limits is not None
    return proposing[0], limits
