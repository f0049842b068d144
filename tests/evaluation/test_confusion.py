"""Confusion of classes, thresholds, reliability of scores, and scores of keyframes, on boxes made by hand."""

import numpy as np
import pytest
from nuscenes.eval.detection.constants import DETECTION_NAMES

from bevformer_plugin.evaluation import (
    best_thresholds,
    class_confusion,
    frame_scores,
    match_boxes,
    score_reliability,
)

from .hand_made_boxes import scored_boxes

CAR, TRUCK, BUS, PEDESTRIAN = (DETECTION_NAMES.index(name) for name in ('car', 'truck', 'bus', 'pedestrian'))

BOXES = scored_boxes(
    [
        (0, 'car', 10.0, 0.0),
        (0, 'truck', 20.0, 0.0),
        (0, 'bus', 30.0, 0.0),
        (1, 'car', 10.0, 0.0),
        (1, 'car', 0.0, -20.0),
        (1, 'pedestrian', 20.0, 0.0),
        (1, 'truck', 40.0, 0.0),
    ],
    [
        (0, 'car', 10.5, 0.0, 0.9),
        (0, 'car', 20.5, 0.0, 0.8),  # a truck taken for a car
        (0, 'pedestrian', 31.0, 0.0, 0.7),  # a bus taken for a pedestrian
        (1, 'car', 11.0, 0.0, 0.6),
        (1, 'car', 0.0, -20.0, 0.6),
        (1, 'pedestrian', 20.0, 1.0, 0.6),
        (1, 'car', 20.0, 0.5, 0.6),  # the pedestrian is found already: nothing is left for this one
        (1, 'truck', 40.0, 0.0, 0.6),
        (1, 'car', 40.0, 0.0, 0.1),  # below the threshold
        (1, 'bus', 0.0, 20.0, 0.55),  # no bus is found, so the threshold is that of all classes
    ],
)
MATCHES = match_boxes(BOXES)


def test_counts_of_confused_classes():
    confusion = class_confusion(BOXES, MATCHES)
    expected = np.zeros((10, 10), dtype=int)
    expected[CAR, CAR], expected[TRUCK, CAR], expected[TRUCK, TRUCK] = 3, 1, 1
    expected[BUS, PEDESTRIAN], expected[PEDESTRIAN, PEDESTRIAN] = 1, 1
    assert confusion.counts.tolist() == expected.tolist()
    assert not confusion.missed.any()
    assert confusion.unmatched.tolist() == [1 if label == CAR else 0 for label in range(10)]


def test_thresholds_have_the_highest_f1():
    thresholds = best_thresholds(BOXES, MATCHES)
    # 1 car of 1 box gives F1 1/2, 3 of the 5 boxes down to 0.6 give 3/4.
    assert thresholds[[CAR, TRUCK, PEDESTRIAN, BUS]] == pytest.approx(0.6)


def test_reliability():
    of_all, cars, *others = score_reliability(BOXES, MATCHES)
    assert (of_all.name, cars.name, len(others)) == ('all classes', 'car', 3)
    assert cars.counts.tolist() == [0, 1, 0, 0, 0, 0, 3, 0, 1, 1]
    assert cars.precisions[[1, 6, 8, 9]] == pytest.approx([0, 2 / 3, 0, 1])
    assert cars.mean_scores[[1, 6, 8, 9]] == pytest.approx([0.1, 0.6, 0.8, 0.9])
    assert np.isnan(cars.precisions[0]) and cars.edges[[0, 10]].tolist() == [0, 1]
    assert cars.calibration_error == pytest.approx((0.1 + 3 * (2 / 3 - 0.6) + 0.8 + 0.1) / 6)
    assert of_all.counts.sum() == len(BOXES.predictions)
    certain = scored_boxes([(0, 'car', 1.0, 0.0)], [(0, 'car', 1.0, 0.0, 1.0)])
    assert score_reliability(certain, match_boxes(certain))[0].counts[-1] == 1
    with pytest.raises(ValueError, match='at least one bin, not 0'):
        score_reliability(BOXES, MATCHES, bins=0)


def test_frames_from_the_worst_to_the_best():
    worst, best = frame_scores(BOXES, MATCHES)
    assert (worst.token, worst.scene, worst.position) == ('sample-0', 'scene-0', 0)
    # The car is found, truck and bus are not; a false car after it costs a little.
    assert worst.score == pytest.approx(1 / 3, abs=0.01) and best.score > 0.75
    assert (worst.true_count, worst.found_count, worst.false_count) == (3, 1, 2)
    assert (best.true_count, best.found_count, best.false_count) == (4, 4, 1)
