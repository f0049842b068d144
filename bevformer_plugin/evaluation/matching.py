"""Matching of predicted and true boxes by centre distance: the devkit's, on arrays."""

from dataclasses import dataclass

import numpy as np
from nuscenes.eval.detection.constants import DETECTION_NAMES, TP_METRICS
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from .scored_boxes import BoxTable, ScoredBoxes

DISTANCES = (0.5, 1.0, 2.0, 4.0)  # metres between centres up to which the devkit matches, for AP
TP_DISTANCE = 2.0  # metres; the one at which it measures the errors of matched boxes
ERRORS = tuple(TP_METRICS)  # trans_err, scale_err, orient_err, vel_err, attr_err
UNMATCHED = -1
APART = 1000.0  # metres by which boxes of different frames or classes are set apart, to search all frames at once


@dataclass(frozen=True)
class Matches:
    """What the devkit's matching gives for n predicted boxes.

    Attributes:
        truth: (4, n) int, for each of ``DISTANCES`` the index of the matched true box, ``UNMATCHED`` without one.
        errors: (5, n), for each of ``ERRORS`` the error of boxes matched at 2 m: metres, 1 - IoU, radians, m/s, 0 or
            1; NaN if unmatched, or where velocity or attribute is not known.
        order: (n,) int, the predictions from the highest score to the lowest, equal scores in the devkit's order.
    """

    truth: np.ndarray
    errors: np.ndarray
    order: np.ndarray

    def at(self, distance: float) -> np.ndarray:
        """Return the matches at one of ``DISTANCES`` (n,)."""
        return self.truth[DISTANCES.index(distance)]


@dataclass(frozen=True)
class Pairs:
    """Predicted and true boxes of one frame that are near each other, in the order in which they are matched.

    They are sorted by the predicted box's place in the order of scores, then by distance, then by the true box.

    Attributes:
        predictions, truth: (k,) int, the boxes.
        distances: (k,) metres between the centres, seen from above.
    """

    predictions: np.ndarray
    truth: np.ndarray
    distances: np.ndarray

    def select(self, keep: np.ndarray) -> 'Pairs':
        """Return the pairs for which ``keep`` (k,) is True."""
        return Pairs(self.predictions[keep], self.truth[keep], self.distances[keep])


def match_boxes(boxes: ScoredBoxes) -> Matches:
    """Match as the devkit does: by falling score, each to the nearest true box of its class that is still free."""
    return match_tables(boxes.truth, boxes.predictions)


def match_tables(truth: BoxTable, predictions: BoxTable) -> Matches:
    """Match two tables of boxes, see :func:`match_boxes`.

    Args:
        truth: true boxes.
        predictions: predicted boxes of the same keyframes.
    """
    order = score_order(predictions.scores)
    pairs = near_pairs(truth, predictions, order, max(DISTANCES))
    pairs = pairs.select(truth.labels[pairs.truth] == predictions.labels[pairs.predictions])
    matched = np.stack(
        [
            greedy_matches(pairs.select(pairs.distances < distance), len(truth), len(predictions))
            for distance in DISTANCES
        ]
    )
    errors = box_errors(truth, predictions, matched[DISTANCES.index(TP_DISTANCE)])
    return Matches(matched, errors, order)


def score_order(scores: np.ndarray) -> np.ndarray:
    """Order boxes as the devkit does: by falling score, and of equal scores the last first."""
    return np.argsort(scores, kind='stable')[::-1]


def near_pairs(truth: BoxTable, predictions: BoxTable, order: np.ndarray, radius: float) -> Pairs:
    """Find all pairs of a predicted and a true box of one frame, of any classes, within a radius.

    Args:
        truth: true boxes.
        predictions: predicted boxes.
        order: (n,) int, the predictions in the order in which they are matched.
        radius: metres between the centres.
    """
    if not len(truth) or not len(predictions):
        return Pairs(np.zeros(0, dtype=int), np.zeros(0, dtype=int), np.zeros(0))
    trees = [KDTree(np.column_stack([boxes.centres[:, :2], APART * boxes.frames])) for boxes in (predictions, truth)]
    found = trees[0].sparse_distance_matrix(trees[1], radius, output_type='ndarray')
    first, second = found['i'].astype(int), found['j'].astype(int)
    distances = np.linalg.norm(predictions.centres[first, :2] - truth.centres[second, :2], axis=1)
    rank = np.empty(len(order), dtype=int)
    rank[order] = np.arange(len(order))
    by_rank = np.lexsort([second, distances, rank[first]])
    return Pairs(first[by_rank], second[by_rank], distances[by_rank])


def greedy_matches(pairs: Pairs, true_count: int, predicted_count: int) -> np.ndarray:
    """Match in the order of the pairs, each box once.

    Args:
        pairs: that may be matched.
        true_count: number of all true boxes.
        predicted_count: number n of all predicted boxes.

    Returns:
        (n,) int, the true box of each predicted one, or ``UNMATCHED``.
    """
    matches = [UNMATCHED] * predicted_count
    taken = [False] * true_count
    for prediction, true in zip(pairs.predictions.tolist(), pairs.truth.tolist(), strict=True):
        if matches[prediction] == UNMATCHED and not taken[true]:
            matches[prediction], taken[true] = true, True
    return np.array(matches, dtype=int)


def least_squares_matches(pairs: Pairs, true_count: int, predicted_count: int) -> np.ndarray:
    """Match each box at most once so that the sum of the squared distances is least.

    A box that stays alone counts as one that is matched at 4 m, the largest of ``DISTANCES``.

    Args:
        pairs: that may be matched.
        true_count: number of all true boxes.
        predicted_count: number n of all predicted boxes.

    Returns:
        (n,) int, the true box of each predicted one, or ``UNMATCHED``.
    """
    matches = np.full(predicted_count, UNMATCHED)
    if not len(pairs.truth):
        return matches
    nodes = predicted_count + true_count
    edges = (pairs.predictions, predicted_count + pairs.truth)
    graph = coo_array((np.ones(len(pairs.truth)), edges), shape=(nodes, nodes))
    component = connected_components(graph, directed=False)[1][pairs.predictions]
    order = np.argsort(component, kind='stable')
    alone = max(DISTANCES) ** 2
    for group in np.split(order, np.flatnonzero(np.diff(component[order])) + 1):
        rows, row = np.unique(pairs.predictions[group], return_inverse=True)
        columns, column = np.unique(pairs.truth[group], return_inverse=True)
        cost = np.full((len(rows), len(columns)), alone)
        cost[row, column] = np.minimum(pairs.distances[group] ** 2, alone)
        first, second = linear_sum_assignment(cost)
        near = cost[first, second] < alone
        matches[rows[first[near]]] = columns[second[near]]
    return matches


def box_errors(truth: BoxTable, predictions: BoxTable, matched: np.ndarray) -> np.ndarray:
    """Measure the devkit's five errors of matched boxes.

    Args:
        truth: true boxes.
        predictions: n predicted boxes.
        matched: (n,) int, see :func:`greedy_matches`.

    Returns:
        (5, n), see :class:`Matches`.
    """
    errors = np.full((len(ERRORS), len(predictions)), np.nan)
    found = np.flatnonzero(matched != UNMATCHED)
    true = matched[found]
    offsets = predictions.centres[found, :2] - truth.centres[true, :2]
    sizes, true_sizes = predictions.sizes[found], truth.sizes[true]
    shared = np.minimum(sizes, true_sizes).prod(axis=1)
    # A barrier has no front, so its heading counts up to half a turn.
    period = np.where(truth.labels[true] == DETECTION_NAMES.index('barrier'), np.pi, 2 * np.pi)
    turns = (truth.yaws[true] - predictions.yaws[found] + period / 2) % period - period / 2
    right = truth.attributes[true] == predictions.attributes[found]
    errors[:, found] = [
        np.linalg.norm(offsets, axis=1),
        1 - shared / (sizes.prod(axis=1) + true_sizes.prod(axis=1) - shared),
        np.abs(turns),
        np.linalg.norm(predictions.velocities[found] - truth.velocities[true], axis=1),
        np.where(truth.attributes[true] == '', np.nan, 1.0 - right),
    ]
    return errors
