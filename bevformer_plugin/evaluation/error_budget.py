"""Where NDS is lost: one cause for every wrong and every missing box, and what mending each cause would give.

What TIDE (Bolya et al., ECCV 2020) does for boxes in images, with distances between centres in place of overlaps.
"""

from dataclasses import dataclass, replace

import numpy as np
from nuscenes.eval.detection.constants import DETECTION_NAMES

from .detection_scores import CONFIG, ClassRecord, DetectionScores, class_records, score_records
from .error_causes import FALSE_POSITIVE_CAUSES, Explanation, explain, false_positive_causes, miss_causes
from .matching import DISTANCES, ERRORS, TP_DISTANCE, UNMATCHED, Matches, match_tables
from .scored_boxes import BoxTable, ScoredBoxes

ERROR_OF_CAUSE = {'orientation': 'orient_err', 'size': 'scale_err', 'velocity': 'vel_err', 'attribute': 'attr_err'}
# Causes of lost NDS, in the order in which the budget lists them.
CAUSES = (*FALSE_POSITIVE_CAUSES, 'missed', *ERROR_OF_CAUSE)
NOTHING_LOST = 1e-9  # NDS


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
        return self.perfect.nds - self.scores.nds


def error_budget(boxes: ScoredBoxes, matches: Matches) -> ErrorBudget:
    """Find the cause of every false positive and every miss, and the scores with each cause mended alone.

    A true box that is missed is mended by not counting it, since nobody knows which score it would get; a class of
    which every true box is missed is then perfect. Orientation, size, velocity and attribute are mended in the boxes
    that the devkit matches at 2 m; localisation in all boxes that have a true box of their class within 4 m.
    """
    records = class_records(boxes.truth, boxes.predictions, matches)
    scores, perfect = score_records(records), score_truth(boxes.truth)
    explanation = explain(boxes)
    mended = _mended_boxes(explanation)
    mended['missed'] = _without_missed(boxes, explanation, perfect)
    for cause, error in ERROR_OF_CAUSE.items():
        mended[cause] = score_records(_without_error(boxes, matches, records, error))
    wrong, absent = false_positive_causes(explanation, matches), miss_causes(explanation, matches)
    lost = perfect.nds - scores.nds

    def share(cause: str) -> CauseShare:
        gain = mended[cause].nds - scores.nds
        none = np.zeros(len(DISTANCES), dtype=int)
        return CauseShare(
            cause=cause,
            false_positives=wrong.get(cause, none),
            misses=absent.get(cause, none),
            mended=mended[cause],
            nds_gain=gain,
            ap_gain=mended[cause].mean_ap - scores.mean_ap,
            ap_gains=(mended[cause].aps - scores.aps).mean(axis=0),
            share=gain / lost if lost > NOTHING_LOST else 0.0,
        )

    return ErrorBudget(
        scores=scores,
        perfect=perfect,
        false_positives=(matches.truth == UNMATCHED).sum(axis=1),
        misses=len(boxes.truth) - (matches.truth != UNMATCHED).sum(axis=1),
        shares=tuple(share(cause) for cause in CAUSES),
        class_ap_gains=np.stack([mended[cause].class_aps - scores.class_aps for cause in CAUSES]),
    )


def score_truth(truth: BoxTable) -> DetectionScores:
    """Score true boxes as if a detector had found exactly them."""
    found = replace(truth, scores=np.ones(len(truth)))
    return _score(truth, found)


def _score(truth: BoxTable, predictions: BoxTable) -> DetectionScores:
    """Match and score boxes."""
    return score_records(class_records(truth, predictions, match_tables(truth, predictions)))


def _mended_boxes(explanation: Explanation) -> dict[str, DetectionScores]:
    """Score the predicted boxes with each cause of false positives mended: boxes are changed or taken out."""
    truth = explanation.truth.select(explanation.truth_counts)

    def score(boxes: BoxTable, counts: np.ndarray) -> DetectionScores:
        return _score(truth, boxes.select(counts))

    boxes, counts = explanation.predictions, explanation.prediction_counts
    return {
        'class': score(*_with_true_classes(explanation)),
        'localisation': score(*_at_true_centres(explanation)),
        'duplicate': score(boxes, counts & (explanation.causes != 'duplicate')),
        'background': score(boxes, counts & (explanation.causes != 'background')),
    }


def _with_true_classes(explanation: Explanation) -> tuple[BoxTable, np.ndarray]:
    """Give boxes of a wrong class that of the true box, and take out those whose true box is found already.

    Returns:
        All boxes, and which of them count (n,).
    """
    boxes, partner = explanation.predictions, explanation.other_class_partner
    renamed = partner != UNMATCHED
    labels = np.where(renamed, explanation.truth.labels[partner], boxes.labels)
    ranges = np.array([CONFIG.class_range[name] for name in DETECTION_NAMES])
    counts = np.where(
        renamed, boxes.ego_distances < ranges[labels], explanation.prediction_counts & (explanation.causes != 'class')
    )
    return replace(boxes, labels=labels), counts


def _at_true_centres(explanation: Explanation) -> tuple[BoxTable, np.ndarray]:
    """Move boxes to the true box that they are for, and take out those whose true box is found already.

    Returns:
        All boxes, and which of them count (n,).
    """
    boxes, partner = explanation.predictions, explanation.partner
    moved = partner != UNMATCHED
    centres = np.where(moved[:, None], explanation.truth.centres[partner], boxes.centres)
    stays = explanation.prediction_counts & (explanation.causes != 'localisation')
    return replace(boxes, centres=centres), np.where(moved, explanation.truth_counts[partner], stays)


def _without_missed(boxes: ScoredBoxes, explanation: Explanation, perfect: DetectionScores) -> DetectionScores:
    """Score against the true boxes that are not missed; a class of which all are missed is as in a perfect one."""
    missed = explanation.missed[explanation.truth_counts]
    scores = _score(boxes.truth.select(~missed), boxes.predictions)
    emptied = np.setdiff1d(boxes.truth.labels, boxes.truth.labels[~missed])
    aps, errors = scores.aps.copy(), scores.errors.copy()
    aps[emptied], errors[emptied] = perfect.aps[emptied], perfect.errors[emptied]
    return DetectionScores(aps, errors)


def _without_error(boxes: ScoredBoxes, matches: Matches, records: list[ClassRecord], error: str) -> list[ClassRecord]:
    """Set one of the devkit's errors of matched boxes to 0 where the truth is known; elsewhere it is unknown."""
    matched = matches.at(TP_DISTANCE)
    unknown = {
        'vel_err': np.isnan(boxes.truth.velocities).any(axis=1),
        'attr_err': boxes.truth.attributes == '',
    }.get(error, np.zeros(len(boxes.truth), dtype=bool))
    values = np.where((matched == UNMATCHED) | unknown[matched], np.nan, 0.0)
    number = ERRORS.index(error)
    changed = []
    for label, record in enumerate(records):
        index = matches.order[boxes.predictions.labels[matches.order] == label]
        errors = record.errors.copy()
        errors[number] = values[index]
        changed.append(replace(record, errors=errors))
    return changed
