"""The devkit's scores from matches: curves of each class, AP, errors of matched boxes, NDS."""

from dataclasses import dataclass

import numpy as np

from .matching import Matches
from .scored_boxes import ScoredBoxes


@dataclass(frozen=True)
class DetectionScores:
    """Scores of the devkit's ten classes, in the order of its ``DETECTION_NAMES``.

    Attributes:
        aps: (10, 4) average precision at ``DISTANCES``.
        errors: (10, 5) errors of matched boxes in the order of ``ERRORS``, NaN where the devkit defines none.
    """

    aps: np.ndarray
    errors: np.ndarray

    @property
    def class_aps(self) -> np.ndarray:
        """Average precision of each class (10,), the mean over the four distances."""
        raise NotImplementedError

    @property
    def mean_ap(self) -> float:
        """The devkit's mAP."""
        raise NotImplementedError

    @property
    def mean_errors(self) -> np.ndarray:
        """The five mean errors (5,), in the order of ``ERRORS``."""
        raise NotImplementedError

    @property
    def nds(self) -> float:
        """The nuScenes detection score."""
        raise NotImplementedError

    def headline(self) -> dict[str, float]:
        """Return the seven figures by the names NDS, mAP, mATE, mASE, mAOE, mAVE and mAAE, in this order."""
        raise NotImplementedError


@dataclass(frozen=True)
class ClassCurves:
    """Curves of one class over the 101 recalls 0, 0.01, ..., 1.

    Attributes:
        name: of the class.
        true_count: number of true boxes.
        predicted_count: number of predicted boxes.
        matched_counts: (4,) int, predicted boxes matched at each of ``DISTANCES``.
        precision: (4, 101) at each of ``DISTANCES``, 0 beyond the recall that is reached.
        confidence: (4, 101) score at which each recall is reached, 0 beyond.
        errors: (5, 101) mean error of the boxes matched at 2 m up to each recall, NaN beyond the recall that is
            reached and where the devkit defines no error.
    """

    name: str
    true_count: int
    predicted_count: int
    matched_counts: np.ndarray
    precision: np.ndarray
    confidence: np.ndarray
    errors: np.ndarray


def detection_scores(boxes: ScoredBoxes, matches: Matches) -> DetectionScores:
    """Compute the devkit's scores."""
    raise NotImplementedError


def class_curves(boxes: ScoredBoxes, matches: Matches) -> list[ClassCurves]:
    """Compute the curves of the ten classes, in the devkit's order."""
    raise NotImplementedError
