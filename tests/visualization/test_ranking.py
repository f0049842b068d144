"""The score of a sample."""

from dataclasses import replace

import numpy as np
import pytest

from bevformer_plugin.visualization import Boxes, Frame, sample_score


def make_frame(truth, predictions):
    """Truth rows are (x, y, class), prediction rows (x, y, class, score)."""

    def boxes(rows):
        values = np.array([(x, y, 0, 4, 2, 1.5, 0, 0, 0) for x, y, *_ in rows], dtype=np.float64).reshape(-1, 9)
        return Boxes(values, tuple(row[2] for row in rows), np.array([(*row, 1.0)[3] for row in rows]))

    return Frame(None, {'lidar_points': {'lidar2ego': np.eye(4)}}, boxes(truth), boxes(predictions))


@pytest.mark.parametrize(
    ('truth', 'predictions', 'score'),
    [
        ([(0, 10, 'car')], [(0, 11.9, 'car', 0.5)], 1.0),  # within 2 m
        ([(0, 10, 'car')], [(0, 12.1, 'car', 0.5)], 0.0),  # not within 2 m
        ([(0, 10, 'car')], [(0, 10, 'truck', 0.5)], 0.0),  # another class
        ([(0, 10, 'car')], [], 0.0),
        ([(0, 10, 'car'), (5, 5, 'pedestrian')], [(0, 10, 'car', 0.5)], 0.5),  # the mean over two classes
        ([(0, 10, 'car'), (0, 60, 'car')], [(0, 10, 'car', 0.5)], 1.0),  # cars beyond 50 m do not count
        ([(0, 60, 'car')], [], None),
    ],
)
def test_score(truth, predictions, score):
    assert sample_score(make_frame(truth, predictions)) == pytest.approx(score)


def test_a_confident_false_box_costs_precision():
    found, false = (0, 10, 'car', 0.5), (20, 10, 'car', 0.9)
    after, before = (make_frame([(0, 10, 'car')], [found, (*false[:3], score)]) for score in (0.1, 0.9))
    assert sample_score(after) > 0.99
    assert sample_score(before) < 0.5


def test_annotations_as_predictions_score_one(source):
    for token in source.infos:
        assert sample_score(source.frame(token)) == pytest.approx(1.0)


def test_range_is_measured_from_the_vehicle():
    frame = make_frame([(0, 49.5, 'car')], [])
    lidar2ego = np.eye(4)
    lidar2ego[1, 3] = 1.0  # the LiDAR is a metre ahead of the vehicle's origin
    assert sample_score(frame) == 0.0
    assert sample_score(replace(frame, info={'lidar_points': {'lidar2ego': lidar2ego}})) is None
