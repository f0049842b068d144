"""Objects that a head proposes from the camera images, before the BEV has been searched."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ProposalLimits:
    """Which of the objects that a head finds are proposed.

    Attributes:
        max_num: of a sample, those with the best scores.
        min_score: least score, from 0 to 1.
        max_overlap: an object is left out if its 2-D box overlaps that of one with a better score, of the same class
            in the same image, by more than this (intersection over union).
    """

    max_num: int
    min_score: float
    max_overlap: float


@dataclass(frozen=True)
class Proposals:
    """The proposed objects of one sample, the best score first, without gradient.

    Attributes:
        boxes: (n, 7) metric boxes whose z is the centre's, LiDAR frame, moved as the BEV of the sample is where that
            is augmented; x and y lie within the range of the grid.
        scores: (n,) from 0 to 1, falling.
        labels: (n,) classes.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
