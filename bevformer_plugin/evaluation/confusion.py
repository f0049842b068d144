"""Which classes are taken for which others, by centre distance."""

from dataclasses import dataclass

import numpy as np
from nuscenes.eval.detection.constants import DETECTION_NAMES

from .detection_scores import AT_TP_DISTANCE, class_records
from .matching import TP_DISTANCE, UNMATCHED, Matches, greedy_matches, near_pairs
from .scored_boxes import ScoredBoxes


@dataclass(frozen=True)
class Confusion:
    """Counts of true against predicted classes, both in the order of the devkit's ``DETECTION_NAMES``.

    Attributes:
        counts: (10, 10) int, true boxes (rows) that a predicted box (columns) within 2 m was matched with.
        missed: (10,) int, true boxes of each class without a predicted box.
        unmatched: (10,) int, predicted boxes of each class without a true box.
        thresholds: (10,) scores from which on predicted boxes were taken, see :func:`best_thresholds`.
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
    truth, predictions = boxes.truth, boxes.predictions
    thresholds = best_thresholds(boxes, matches)
    taken = above_thresholds(boxes, thresholds)
    partner = np.where(taken, matches.at(TP_DISTANCE), UNMATCHED)
    pairs = near_pairs(truth, predictions, matches.order, TP_DISTANCE)
    free = np.ones(len(truth), dtype=bool)
    free[partner[partner != UNMATCHED]] = False
    open_pairs = (
        (pairs.distances < TP_DISTANCE)
        & (truth.labels[pairs.truth] != predictions.labels[pairs.predictions])
        & free[pairs.truth]
        & (taken & (partner == UNMATCHED))[pairs.predictions]
    )
    others = greedy_matches(pairs.select(open_pairs), len(truth), len(predictions))
    partner = np.where(partner == UNMATCHED, others, partner)
    classes = len(DETECTION_NAMES)
    matched = np.flatnonzero(partner != UNMATCHED)
    counts = np.zeros((classes, classes), dtype=int)
    np.add.at(counts, (truth.labels[partner[matched]], predictions.labels[matched]), 1)
    return Confusion(
        counts=counts,
        missed=np.bincount(truth.labels, minlength=classes) - counts.sum(axis=1),
        unmatched=np.bincount(predictions.labels[taken], minlength=classes) - counts.sum(axis=0),
        thresholds=thresholds,
    )


def best_thresholds(boxes: ScoredBoxes, matches: Matches) -> np.ndarray:
    """Return the scores (10,) with the highest F1 of each class at 2 m.

    A class of which no box is matched gets the score with the highest F1 of all classes together, which is NaN if no
    box is matched at all.
    """
    hits = matches.at(TP_DISTANCE)[matches.order] != UNMATCHED
    of_all = _best_threshold(boxes.predictions.scores[matches.order], hits, len(boxes.truth))
    records = class_records(boxes.truth, boxes.predictions, matches)
    of_classes = np.array(
        [_best_threshold(record.scores, record.hits[AT_TP_DISTANCE], record.positives) for record in records]
    )
    return np.where(np.isnan(of_classes), of_all, of_classes)


def above_thresholds(boxes: ScoredBoxes, thresholds: np.ndarray) -> np.ndarray:
    """Tell of each predicted box (n,) whether it is at or above its class's threshold; NaN takes all boxes."""
    return ~(boxes.predictions.scores < thresholds[boxes.predictions.labels])


def _best_threshold(scores: np.ndarray, hits: np.ndarray, positives: int) -> float:
    """Return the score with the highest F1, NaN if nothing is matched.

    Args:
        scores: (n,) falling.
        hits: (n,) bool, whether boxes are matched.
        positives: number of true boxes.
    """
    if not hits.any():
        return float('nan')
    f1 = 2 * np.cumsum(hits) / (np.arange(1, len(hits) + 1) + positives)
    # A threshold takes all boxes of equal score, so only the last of them tells what it gives.
    last = np.append(scores[1:] != scores[:-1], True)
    return float(scores[np.argmax(np.where(last, f1, -1))])
