"""Where NDS is lost: one cause for every wrong and every missing box, and what mending each cause would give."""

from dataclasses import dataclass

import numpy as np

from .detection_scores import DetectionScores
from .matching import Matches
from .scored_boxes import ScoredBoxes

FALSE_POSITIVE_CAUSES = ('class', 'localisation', 'duplicate', 'background')
MISS_CAUSES = ('class', 'localisation', 'missed')
# Causes of lost NDS, in the order in which the budget lists them.
CAUSES = (
    'class',
    'localisation',
    'duplicate',
    'background',
    'missed',
    'orientation',
    'size',
    'velocity',
    'attribute',
)


@dataclass(frozen=True)
class CauseShare:
    """What one cause costs.

    Attributes:
        cause: one of ``CAUSES``.
        false_positives: (4,) int, predicted boxes that this makes false at each of ``DISTANCES``.
        misses: (4,) int, true boxes that this makes missed at each of ``DISTANCES``.
        mended: the scores if this cause alone were mended.
        nds_gain: NDS gained by that, 0 or more except where boxes change partners.
        ap_gain: mAP gained by that.
        ap_gains: (4,) mAP gained at each of ``DISTANCES``.
        share: ``nds_gain`` as a share of all NDS that is lost against a perfect submission; 0 if nothing is lost.
    """

    cause: str
    false_positives: np.ndarray
    misses: np.ndarray
    mended: DetectionScores
    nds_gain: float
    ap_gain: float
    ap_gains: np.ndarray
    share: float


@dataclass(frozen=True)
class ErrorBudget:
    """Causes of lost NDS.

    Attributes:
        scores: of the submission.
        perfect: scores of the true boxes themselves, which are below 1 where the devkit gives 0 to a class without
            true boxes.
        false_positives: (4,) int, all predicted boxes without a match at each of ``DISTANCES``; the causes' add up.
        misses: (4,) int, all true boxes without a match at each of ``DISTANCES``; the causes' add up to it.
        shares: one for each of ``CAUSES``, in this order. Gains do not add up to the loss: a cause hides another, and
            mending two together gives more or less than the sum.
        class_ap_gains: (9, 10) AP (mean over the distances) that mending each cause gives to each class.
    """

    scores: DetectionScores
    perfect: DetectionScores
    false_positives: np.ndarray
    misses: np.ndarray
    shares: tuple[CauseShare, ...]
    class_ap_gains: np.ndarray

    @property
    def nds_lost(self) -> float:
        """NDS of the perfect submission minus that of this one."""
        raise NotImplementedError


def error_budget(boxes: ScoredBoxes, matches: Matches) -> ErrorBudget:
    """Find the cause of every false positive and every miss, and the scores with each cause mended alone."""
    raise NotImplementedError
