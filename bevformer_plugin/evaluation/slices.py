"""Scores of slices of the boxes: by distance, speed, camera seam, frame, weather, place, visibility and points."""

from dataclasses import dataclass

import numpy as np

from .matching import Matches
from .scored_boxes import ScoredBoxes


@dataclass(frozen=True)
class Slice:
    """Boxes that have something in common.

    Attributes:
        name: such as '10-20 m'.
        true_counts: (10,) int, true boxes of each class.
        predicted_counts: (10,) int, predicted boxes of each class; None where the property is known of true boxes only.
        aps: (10, 4) average precision at ``DISTANCES``, NaN for classes without true boxes in the slice; None as above.
        mean_ap: mean over the classes with true boxes in the slice and over the distances; NaN without any, None as
            above.
        recalls: (10,) share of true boxes matched at 2 m at any score, NaN for classes without true boxes.
        recall: the same over all classes together; NaN without true boxes.
        mean_errors: (5,) errors in the order of ``ERRORS`` of the boxes matched at 2 m: the mean over the classes of
            each class's mean over its boxes, NaN where there are none.
    """

    name: str
    true_counts: np.ndarray
    predicted_counts: np.ndarray | None
    aps: np.ndarray | None
    mean_ap: float | None
    recalls: np.ndarray
    recall: float
    mean_errors: np.ndarray


@dataclass(frozen=True)
class Slicing:
    """One way of cutting all boxes into slices: every true box is in exactly one slice.

    Attributes:
        name: 'distance', 'speed', 'camera seam', 'frame of the scene', 'conditions', 'location', 'visibility' or
            'LiDAR points'.
        rule: a sentence that says how boxes are assigned.
        of_truth_only: the property is known of true boxes only, so slices have recall and errors but no AP.
        slices: in their natural order; empty slices are kept.
    """

    name: str
    rule: str
    of_truth_only: bool
    slices: tuple[Slice, ...]


def slicings(boxes: ScoredBoxes, matches: Matches, progress: bool = True) -> list[Slicing]:
    """Compute the scores of all slices.

    A predicted box that matches a true one (at the distance in question) is in the slice of the true one; any other is
    in the slice of its own distance, speed or direction, or that of its frame.
    """
    raise NotImplementedError
