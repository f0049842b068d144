"""Whether scores say how often boxes are right: the reliability curve."""

from dataclasses import dataclass

import numpy as np
from nuscenes.eval.detection.constants import DETECTION_NAMES

from bevformer_plugin.errors import InputError

from .matching import TP_DISTANCE, UNMATCHED, Matches
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
    """Compute the reliability of all boxes together, then that of each class with predicted boxes.

    Raises:
        InputError: ``bins`` is not positive.
    """
    if bins < 1:
        raise InputError(f'reliability takes at least one bin, not {bins}')
    scores, labels = boxes.predictions.scores, boxes.predictions.labels
    hits = matches.at(TP_DISTANCE) != UNMATCHED
    return [
        _reliability('all classes', scores, hits, bins),
        *(
            _reliability(DETECTION_NAMES[label], scores[labels == label], hits[labels == label], bins)
            for label in np.unique(labels)
        ),
    ]


def _reliability(name: str, scores: np.ndarray, hits: np.ndarray, bins: int) -> Reliability:
    """Compute the reliability of n boxes from their scores (n,) and whether they are right (n,)."""
    which = np.minimum((scores * bins).astype(int), bins - 1)
    counts = np.bincount(which, minlength=bins)
    filled = np.where(counts > 0, counts, np.nan)
    mean_scores = np.bincount(which, scores, bins) / filled
    precisions = np.bincount(which, hits, bins) / filled
    error = np.nansum(counts * np.abs(mean_scores - precisions)) / len(scores) if len(scores) else np.nan
    return Reliability(name, np.linspace(0, 1, bins + 1), counts, mean_scores, precisions, float(error))
