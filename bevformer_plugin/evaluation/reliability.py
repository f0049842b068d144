"""Whether scores say how often boxes are right: the reliability curve."""

from dataclasses import dataclass

import numpy as np

from .matching import Matches
from .scored_boxes import ScoredBoxes


@dataclass(frozen=True)
class Reliability:
    """Predicted boxes in bins of equal width of their score.

    Attributes:
        name: a class, or 'all classes'.
        edges: (bins + 1,) scores from 0 to 1.
        counts: (bins,) int, predicted boxes in each bin.
        mean_scores: (bins,) NaN for an empty bin.
        precisions: (bins,) share of boxes that match a true one at 2 m, NaN for an empty bin.
        calibration_error: mean difference between score and precision, weighted by the counts; NaN without boxes.
    """

    name: str
    edges: np.ndarray
    counts: np.ndarray
    mean_scores: np.ndarray
    precisions: np.ndarray
    calibration_error: float


def score_reliability(boxes: ScoredBoxes, matches: Matches, bins: int = 10) -> list[Reliability]:
    """Compute the reliability of all boxes together, then that of each class with predicted boxes."""
    raise NotImplementedError
