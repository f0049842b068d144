"""Matching of predicted and true boxes by centre distance: the devkit's, on arrays."""

from dataclasses import dataclass

import numpy as np

from .scored_boxes import BoxTable, ScoredBoxes

DISTANCES = (0.5, 1.0, 2.0, 4.0)  # metres between centres up to which the devkit matches, for AP
TP_DISTANCE = 2.0  # metres; the one at which it measures the errors of matched boxes
ERRORS = ('trans_err', 'scale_err', 'orient_err', 'vel_err', 'attr_err')  # the devkit's names, in its order
UNMATCHED = -1


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


def match_boxes(boxes: ScoredBoxes) -> Matches:
    """Match predicted with true boxes as the devkit does: by falling score, each to the nearest true box still free."""
    raise NotImplementedError


def match_tables(truth: BoxTable, predictions: BoxTable) -> Matches:
    """Match two tables of boxes over the same keyframes, see :func:`match_boxes`."""
    raise NotImplementedError
