"""Why predicted boxes are wrong and true boxes are missed: one cause for each."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from .matching import (
    DISTANCES,
    TP_DISTANCE,
    UNMATCHED,
    Matches,
    Pairs,
    greedy_matches,
    least_squares_matches,
    near_pairs,
    score_order,
)
from .scored_boxes import BoxTable, ScoredBoxes

FALSE_POSITIVE_CAUSES = ('class', 'localisation', 'duplicate', 'background')
MISS_CAUSES = ('class', 'localisation', 'missed')
FOUND = ''  # no cause: the box has a true box of its class


@dataclass(frozen=True)
class Explanation:
    """Which true box each of n predicted boxes is for, and what is wrong with those that are for none.

    Left-out boxes take part, because a box may be left out, or not, only for its wrong class or place.

    Attributes:
        truth: true boxes, first those that count, then those that the devkit's filters leave out.
        predictions: likewise.
        truth_counts: (m,) bool, whether true boxes count.
        prediction_counts: (n,) bool, whether predicted boxes count.
        partner: (n,) int, the true box of the same class within 4 m that each is for, or ``UNMATCHED``.
        other_class_partner: (n,) int, the true box of another class within 2 m that it is for, or ``UNMATCHED``.
        distances: (n,) metres to ``partner``, NaN without one.
        causes: (n,) str, one of ``FALSE_POSITIVE_CAUSES`` for boxes without ``partner``, ``FOUND`` for others.
        missed: (m,) bool, true boxes that no predicted box is for.
    """

    truth: BoxTable
    predictions: BoxTable
    truth_counts: np.ndarray
    prediction_counts: np.ndarray
    partner: np.ndarray
    other_class_partner: np.ndarray
    distances: np.ndarray
    causes: np.ndarray
    missed: np.ndarray


def explain(boxes: ScoredBoxes) -> Explanation:
    """Find out which true box each predicted one is for, and what is wrong with those that are for none.

    Boxes are matched as the devkit matches at 0.5 m, what is left at 1 m, then at 2 m and at 4 m, so that a box that
    fits well is not taken for a badly placed one. These boxes, and others that score as high as their better half,
    then change partners if that makes the sum of the squared distances smaller, so that in a crowd each box keeps its
    own true box although others are nearer. What is left is matched with true boxes of another class, at up to 2 m.
    What is still left is

    - 'duplicate' if a true box of its class is within 2 m, which then has another predicted box,
    - 'class' if a true box of another class is,
    - 'localisation' if a true box of its class is within 4 m,
    - 'background' otherwise.
    """
    truth, predictions = (
        _joined(boxes.truth, boxes.left_out_truth),
        _joined(boxes.predictions, boxes.left_out_predictions),
    )
    pairs = near_pairs(truth, predictions, score_order(predictions.scores), max(DISTANCES))
    same_class = truth.labels[pairs.truth] == predictions.labels[pairs.predictions]
    same, other = pairs.select(same_class), pairs.select(~same_class)
    free = np.ones(len(truth), dtype=bool)
    partner = _match_by_rings(same, DISTANCES, free, np.ones(len(predictions), dtype=bool))
    credible = _as_good_as_partnered(predictions, partner)
    partner = least_squares_matches(same.select(credible[same.predictions]), len(truth), len(predictions))
    free[partner[partner != UNMATCHED]] = False
    rings = tuple(distance for distance in DISTANCES if distance <= TP_DISTANCE)
    other_partner = _match_by_rings(other, rings, free, partner == UNMATCHED)
    free[other_partner[other_partner != UNMATCHED]] = False
    causes = np.full(len(predictions), 'background', dtype='<U12')
    causes[same.predictions] = 'localisation'
    causes[other.predictions[other.distances < TP_DISTANCE]] = 'class'
    causes[same.predictions[same.distances < TP_DISTANCE]] = 'duplicate'
    causes[other_partner != UNMATCHED] = 'class'
    causes[partner != UNMATCHED] = FOUND
    offsets = predictions.centres[:, :2] - truth.centres[partner, :2]
    return Explanation(
        truth=truth,
        predictions=predictions,
        truth_counts=np.arange(len(truth)) < len(boxes.truth),
        prediction_counts=np.arange(len(predictions)) < len(boxes.predictions),
        partner=partner,
        other_class_partner=other_partner,
        distances=np.where(partner == UNMATCHED, np.nan, np.linalg.norm(offsets, axis=1)),
        causes=causes,
        missed=free,
    )


def false_positive_causes(explanation: Explanation, matches: Matches) -> dict[str, np.ndarray]:
    """Count the causes of the boxes that the devkit does not match.

    A box that is for a true box of its class is false at the distances that are shorter than the one between them, for
    its localisation; where it is near enough, another box took its true box: it is a duplicate there.

    Returns:
        For each of ``FALSE_POSITIVE_CAUSES`` the number of boxes at each of ``DISTANCES`` (4,) int.
    """
    counts = explanation.prediction_counts
    partner, distances, causes = (
        values[counts] for values in (explanation.partner, explanation.distances, explanation.causes)
    )
    counted_partner = explanation.truth_counts[partner]
    rows = []
    for distance, matched in zip(DISTANCES, matches.truth, strict=True):
        of_found = np.where(counted_partner & (distances < distance), 'duplicate', 'localisation')
        rows.append(np.where(causes == FOUND, of_found, causes)[matched == UNMATCHED])
    return {cause: np.array([int((row == cause).sum()) for row in rows]) for cause in FALSE_POSITIVE_CAUSES}


def miss_causes(explanation: Explanation, matches: Matches) -> dict[str, np.ndarray]:
    """Count the causes of true boxes that the devkit does not match.

    Returns:
        For each of ``MISS_CAUSES`` the number of true boxes at each of ``DISTANCES`` (4,) int.
    """
    causes = np.full(len(explanation.truth), 'class', dtype='<U12')
    causes[explanation.partner[explanation.partner != UNMATCHED]] = 'localisation'
    causes[explanation.missed] = 'missed'
    causes = causes[explanation.truth_counts]
    rows = []
    for matched in matches.truth:
        absent = np.ones(len(causes), dtype=bool)
        absent[matched[matched != UNMATCHED]] = False
        rows.append(causes[absent])
    return {cause: np.array([int((row == cause).sum()) for row in rows]) for cause in MISS_CAUSES}


def _match_by_rings(
    pairs: Pairs, distances: Sequence[float], free_truth: np.ndarray, free_predictions: np.ndarray
) -> np.ndarray:
    """Match at the shortest distance, then what is left at the next.

    Args:
        pairs: that may be matched.
        distances: growing, metres.
        free_truth: (m,) bool, true boxes that may be matched.
        free_predictions: (n,) bool, predicted boxes that may be matched.

    Returns:
        (n,) int, the true box of each predicted one, or ``UNMATCHED``.
    """
    partner = np.full(len(free_predictions), UNMATCHED)
    free_truth = free_truth.copy()
    for distance in distances:
        open_pairs = (
            (pairs.distances < distance)
            & free_truth[pairs.truth]
            & (free_predictions & (partner == UNMATCHED))[pairs.predictions]
        )
        matched = greedy_matches(pairs.select(open_pairs), len(free_truth), len(partner))
        free_truth[matched[matched != UNMATCHED]] = False
        partner = np.where(partner == UNMATCHED, matched, partner)
    return partner


def _as_good_as_partnered(predictions: BoxTable, partner: np.ndarray) -> np.ndarray:
    """Tell which predicted boxes (n,) have a partner, or a score of at least the median of those of their class."""
    partnered = partner != UNMATCHED
    good = partnered.copy()
    for label in np.unique(predictions.labels[partnered]):
        of_class = predictions.labels == label
        good |= of_class & (predictions.scores >= np.median(predictions.scores[of_class & partnered]))
    return good


def _joined(first: BoxTable, second: BoxTable) -> BoxTable:
    """Put the boxes of a second table behind those of a first."""
    return BoxTable(
        **{
            field.name: np.concatenate([getattr(first, field.name), getattr(second, field.name)])
            for field in fields(BoxTable)
        }
    )
