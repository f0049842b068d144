"""The devkit's scores from matches: curves of each class, AP, errors of matched boxes, NDS."""

from dataclasses import dataclass

import numpy as np
from nuscenes.eval.detection.config import config_factory
from nuscenes.eval.detection.constants import DETECTION_NAMES
from nuscenes.eval.detection.data_classes import DetectionMetricData

from .matching import DISTANCES, ERRORS, TP_DISTANCE, UNMATCHED, Matches
from .report import MEAN_ERRORS
from .scored_boxes import BoxTable, ScoredBoxes

CONFIG = config_factory('detection_cvpr_2019')
RECALLS = np.linspace(0, 1, DetectionMetricData.nelem)
FIRST_RECALL = round(100 * CONFIG.min_recall) + 1  # the devkit leaves out lower recalls
AT_TP_DISTANCE = DISTANCES.index(TP_DISTANCE)
HEADLINE_NAMES = ('NDS', 'mAP', *MEAN_ERRORS)
UNDEFINED_ERRORS = {  # errors that the devkit does not define, by class
    'traffic_cone': ('orient_err', 'vel_err', 'attr_err'),
    'barrier': ('vel_err', 'attr_err'),
}


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
        return self.aps.mean(axis=1)

    @property
    def mean_ap(self) -> float:
        """The devkit's mAP."""
        return float(self.class_aps.mean())

    @property
    def mean_errors(self) -> np.ndarray:
        """The five mean errors (5,), in the order of ``ERRORS``."""
        return np.nanmean(self.errors, axis=0)

    @property
    def nds(self) -> float:
        """The nuScenes detection score."""
        quality = np.maximum(0, 1 - self.mean_errors)
        weight = CONFIG.mean_ap_weight
        return float((weight * self.mean_ap + quality.sum()) / (weight + len(quality)))

    def headline(self) -> dict[str, float]:
        """Return the seven figures by the names NDS, mAP, mATE, mASE, mAOE, mAVE and mAAE, in this order."""
        errors = dict(zip(ERRORS, self.mean_errors.tolist(), strict=True))
        return {'NDS': self.nds, 'mAP': self.mean_ap} | {name: errors[key] for name, key in MEAN_ERRORS.items()}


@dataclass(frozen=True)
class ClassRecord:
    """The n predicted boxes of one class, from the highest score to the lowest, and what became of them.

    Attributes:
        scores: (n,).
        hits: (4, n) bool, whether a box is matched at each of ``DISTANCES``.
        errors: (5, n) see :class:`Matches`.
        positives: number of true boxes.
    """

    scores: np.ndarray
    hits: np.ndarray
    errors: np.ndarray
    positives: int

    def take(self, index: np.ndarray, positives: int) -> 'ClassRecord':
        """Return the boxes of an index (k,), which may repeat boxes, as scored against a number of true boxes."""
        return ClassRecord(self.scores[index], self.hits[:, index], self.errors[:, index], positives)


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


def class_records(truth: BoxTable, predictions: BoxTable, matches: Matches) -> list[ClassRecord]:
    """Sort the predicted boxes by class and score."""
    labels = predictions.labels[matches.order]
    records = []
    for label in range(len(DETECTION_NAMES)):
        index = matches.order[labels == label]
        records.append(
            ClassRecord(
                scores=predictions.scores[index],
                hits=matches.truth[:, index] != UNMATCHED,
                errors=matches.errors[:, index],
                positives=int((truth.labels == label).sum()),
            )
        )
    return records


def detection_scores(boxes: ScoredBoxes, matches: Matches) -> DetectionScores:
    """Compute the devkit's scores."""
    return score_records(class_records(boxes.truth, boxes.predictions, matches))


def score_records(records: list[ClassRecord]) -> DetectionScores:
    """Compute the devkit's scores of the ten classes."""
    scores = [score_class(name, record) for name, record in zip(DETECTION_NAMES, records, strict=True)]
    return DetectionScores(np.stack([aps for aps, _ in scores]), np.stack([errors for _, errors in scores]))


def score_class(name: str, record: ClassRecord) -> tuple[np.ndarray, np.ndarray]:
    """Return a class's average precision at the four distances (4,) and its five errors (5,)."""
    aps = np.array([average_precision(precision_curve(hits, record.positives)) for hits in record.hits])
    confidence = confidence_curve(record, AT_TP_DISTANCE)
    errors = np.array([_error_of_curve(curve, confidence) for curve in _error_curves(record, confidence)])
    errors[[error in UNDEFINED_ERRORS.get(name, ()) for error in ERRORS]] = np.nan
    return aps, errors


def class_curves(boxes: ScoredBoxes, matches: Matches) -> list[ClassCurves]:
    """Compute the curves of the ten classes, in the devkit's order."""
    curves = []
    records = class_records(boxes.truth, boxes.predictions, matches)
    for name, record in zip(DETECTION_NAMES, records, strict=True):
        confidence = np.stack([confidence_curve(record, distance) for distance in range(len(DISTANCES))])
        errors = np.stack(_error_curves(record, confidence[AT_TP_DISTANCE]))
        errors[:, _last_reached(confidence[AT_TP_DISTANCE]) + 1 :] = np.nan
        errors[[error in UNDEFINED_ERRORS.get(name, ()) for error in ERRORS]] = np.nan
        if not record.hits[AT_TP_DISTANCE].any():
            errors[:] = np.nan
        curves.append(
            ClassCurves(
                name=name,
                true_count=record.positives,
                predicted_count=len(record.scores),
                matched_counts=record.hits.sum(axis=1),
                precision=np.stack([precision_curve(hits, record.positives) for hits in record.hits]),
                confidence=confidence,
                errors=errors,
            )
        )
    return curves


def precision_curve(hits: np.ndarray, positives: int) -> np.ndarray:
    """Return the precision at the 101 recalls (101,), as the devkit interpolates it.

    Args:
        hits: (n,) bool, whether boxes are matched, by falling score.
        positives: number of true boxes.
    """
    found = np.cumsum(hits)
    if not positives or not len(hits) or not found[-1]:
        return np.zeros(len(RECALLS))
    return np.interp(RECALLS, found / positives, found / np.arange(1, len(hits) + 1), right=0)


def confidence_curve(record: ClassRecord, distance: int) -> np.ndarray:
    """Return the score at which each of the 101 recalls is reached (101,), 0 beyond, at a distance by its number."""
    found = np.cumsum(record.hits[distance])
    if not record.positives or not len(found) or not found[-1]:
        return np.zeros(len(RECALLS))
    return np.interp(RECALLS, found / record.positives, record.scores, right=0)


def average_precision(precision: np.ndarray) -> float:
    """Return the devkit's average precision of a curve (101,)."""
    above = np.maximum(precision[FIRST_RECALL:] - CONFIG.min_precision, 0)
    return float(above.mean()) / (1 - CONFIG.min_precision)


def _error_curves(record: ClassRecord, confidence: np.ndarray) -> list[np.ndarray]:
    """Return the five mean errors at the 101 recalls, (101,) each; they are 1 if nothing is matched."""
    hits = record.hits[AT_TP_DISTANCE]
    if not hits.any():
        return [np.ones(len(RECALLS)) for _ in ERRORS]
    scores = record.scores[hits][::-1]
    return [
        np.interp(confidence[::-1], scores, _running_mean(errors)[::-1])[::-1] for errors in record.errors[:, hits]
    ]


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Return the mean of the known values up to each one (n,): 1 if none is known at all, 0 before the first."""
    known = ~np.isnan(values)
    if not known.any():
        return np.ones(len(values))
    counts = np.cumsum(known)
    return np.divide(np.nancumsum(values), counts, out=np.zeros(len(values)), where=counts > 0)


def _error_of_curve(curve: np.ndarray, confidence: np.ndarray) -> float:
    """Return the mean of an error over the recalls that are reached, 1 if these are too low."""
    last = _last_reached(confidence)
    return 1.0 if last < FIRST_RECALL else float(curve[FIRST_RECALL : last + 1].mean())


def _last_reached(confidence: np.ndarray) -> int:
    """Return the number of the highest recall that is reached, of a curve of scores (101,)."""
    reached = np.flatnonzero(confidence)
    return int(reached[-1]) if len(reached) else 0
