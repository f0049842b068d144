"""Which classes are taken for which others, by centre distance."""

from dataclasses import dataclass

import numpy as np

from .matching import Matches
from .scored_boxes import ScoredBoxes


@dataclass(frozen=True)
class Confusion:
    """Counts of true against predicted classes, both in the order of the devkit's ``DETECTION_NAMES``.

    Attributes:
        counts: (10, 10) int, true boxes (rows) that a predicted box (columns) within 2 m was matched with.
        missed: (10,) int, true boxes of each class without a predicted box.
        unmatched: (10,) int, predicted boxes of each class without a true box.
        thresholds: (10,) scores from which on predicted boxes were taken: of each class the score with the highest F1
            at 2 m; NaN for a class of which no box is matched, whose boxes are not taken.
    """

    counts: np.ndarray
    missed: np.ndarray
    unmatched: np.ndarray
    thresholds: np.ndarray


def class_confusion(boxes: ScoredBoxes, matches: Matches) -> Confusion:
    """Count which classes are taken for which others.

    Boxes that the devkit matches at 2 m are right. The other predicted boxes at or above their class's threshold are
    matched, by falling score, with the nearest true box of another class that is still free within 2 m.
    """
    raise NotImplementedError


def best_thresholds(boxes: ScoredBoxes, matches: Matches) -> np.ndarray:
    """Return the scores (10,) with the highest F1 of each class at 2 m, NaN for a class of which no box is matched."""
    raise NotImplementedError
