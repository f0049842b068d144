"""A score for each keyframe, to find the worst and the best."""

from dataclasses import dataclass

import numpy as np

from .confusion import above_thresholds, best_thresholds
from .detection_scores import average_precision, precision_curve
from .matching import TP_DISTANCE, UNMATCHED, Matches
from .scored_boxes import ScoredBoxes


@dataclass(frozen=True)
class FrameScore:
    """How well one keyframe is detected.

    Attributes:
        token: of the sample.
        scene: name of its scene.
        position: number of the keyframe in its scene, from 0.
        score: the devkit's AP at 2 m of this keyframe alone, the mean over the classes with true boxes in it.
        true_count: true boxes.
        found_count: true boxes matched at 2 m by a predicted box at or above its class's threshold.
        false_count: predicted boxes at or above the threshold that match nothing at 2 m.
    """

    token: str
    scene: str
    position: int
    score: float
    true_count: int
    found_count: int
    false_count: int


def frame_scores(boxes: ScoredBoxes, matches: Matches) -> list[FrameScore]:
    """Score all keyframes that have true boxes, from the worst to the best; thresholds: see `best_thresholds`."""
    keyframes, predictions = boxes.keyframes, boxes.predictions
    frames = len(keyframes.tokens)
    hits = matches.at(TP_DISTANCE) != UNMATCHED
    taken = above_thresholds(boxes, best_thresholds(boxes, matches))
    true_counts = np.bincount(boxes.truth.frames, minlength=frames)
    found_counts = np.bincount(predictions.frames[hits & taken], minlength=frames)
    false_counts = np.bincount(predictions.frames[~hits & taken], minlength=frames)
    by_frame = _split(matches.order, predictions.frames, frames)
    true_by_frame = _split(np.arange(len(boxes.truth)), boxes.truth.frames, frames)
    scores = [
        FrameScore(
            token=keyframes.tokens[frame],
            scene=keyframes.scene_names[keyframes.scenes[frame]],
            position=int(keyframes.positions[frame]),
            score=_mean_ap(
                boxes.truth.labels[true_by_frame[frame]], predictions.labels[by_frame[frame]], hits[by_frame[frame]]
            ),
            true_count=int(true_counts[frame]),
            found_count=int(found_counts[frame]),
            false_count=int(false_counts[frame]),
        )
        for frame in np.flatnonzero(true_counts).tolist()
    ]
    return sorted(scores, key=lambda frame: (frame.score, frame.scene, frame.position))


def _split(order: np.ndarray, frames: np.ndarray, count: int) -> list[np.ndarray]:
    """Split boxes by keyframe, keeping their order within each.

    Args:
        order: (n,) int, numbers of all boxes.
        frames: (n,) int, the keyframe of each box.
        count: number of keyframes.
    """
    by_frame = order[np.argsort(frames[order], kind='stable')]
    return np.split(by_frame, np.cumsum(np.bincount(frames, minlength=count))[:-1])


def _mean_ap(true_labels: np.ndarray, labels: np.ndarray, hits: np.ndarray) -> float:
    """Return the mean AP of a keyframe's classes.

    Args:
        true_labels: (n,) classes of the true boxes.
        labels: (m,) classes of the predicted boxes, by falling score.
        hits: (m,) bool, whether they are matched.
    """
    classes, counts = np.unique(true_labels, return_counts=True)
    return float(
        np.mean(
            [
                average_precision(precision_curve(hits[labels == label], int(count)))
                for label, count in zip(classes, counts, strict=True)
            ]
        )
    )
