"""A score for a single sample, to find the best and the worst pictures of a submission."""

from collections.abc import Mapping

import numpy as np
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.common.utils import center_distance
from nuscenes.eval.detection.algo import accumulate, calc_ap
from nuscenes.eval.detection.config import config_factory
from nuscenes.eval.detection.data_classes import DetectionBox
from pyquaternion import Quaternion

from .frames import Boxes, Frame

MATCH_DISTANCE = 2.0  # metres between centres up to which a predicted box matches a true one
SCORE_NAME = f'AP at {MATCH_DISTANCE:g} m'


def sample_score(frame: Frame) -> float | None:
    """Compute the devkit's average precision at 2 m centre distance for one sample, as the mean over its classes.

    As in the devkit, boxes beyond their class's detection range count neither as true nor as predicted.

    Returns:
        The score in [0, 1], or None for a sample without a submission or without true boxes within range.
    """
    if frame.predictions is None:
        return None
    config = config_factory('detection_cvpr_2019')
    truth = _within_range(frame.truth, frame.info, config.class_range)
    predictions = _within_range(frame.predictions, frame.info, config.class_range)
    if not len(truth):
        return None
    true_boxes, predicted_boxes = _eval_boxes(truth), _eval_boxes(predictions)
    precisions = [
        calc_ap(
            accumulate(true_boxes, predicted_boxes, name, center_distance, MATCH_DISTANCE),
            config.min_recall,
            config.min_precision,
        )
        for name in sorted(set(truth.names))
    ]
    return float(np.mean(precisions))


def _within_range(boxes: Boxes, info: dict, class_range: Mapping[str, float]) -> Boxes:
    """Keep the boxes that are nearer to the vehicle than their class's detection range."""
    lidar2ego = np.asarray(info['lidar_points']['lidar2ego'])
    centres = boxes.values[:, :3] @ lidar2ego[:3, :3].T + lidar2ego[:3, 3]
    ranges = np.array([class_range[name] for name in boxes.names])
    return boxes.select(np.hypot(centres[:, 0], centres[:, 1]) < ranges)


def _eval_boxes(boxes: Boxes) -> EvalBoxes:
    """Turn boxes into the devkit's, as of one sample."""
    evaluated = EvalBoxes()
    evaluated.add_boxes(
        'sample',
        [
            DetectionBox(
                sample_token='sample',
                translation=tuple(row[:3]),
                size=tuple(row[[4, 3, 5]]),
                rotation=tuple(Quaternion(axis=(0, 0, 1), radians=row[6]).elements),
                velocity=tuple(row[7:]),
                detection_name=name,
                detection_score=float(score),
            )
            for row, name, score in zip(boxes.values, boxes.names, boxes.scores, strict=True)
        ],
    )
    return evaluated
