"""Slices: every box is in one, scores of slices, and how boxes are assigned."""

import numpy as np
import pytest
from nuscenes.eval.detection.constants import DETECTION_NAMES

from bevformer_plugin.evaluation import detection_scores, match_boxes, slicings
from bevformer_plugin.evaluation.camera_seams import HorizontalView, camera_views, cameras_near
from bevformer_plugin.evaluation.slices import conditions_of

from .hand_made_boxes import scored_boxes

CAR, BUS = DETECTION_NAMES.index('car'), DETECTION_NAMES.index('bus')


def by_name(boxes):
    return {slicing.name: slicing for slicing in slicings(boxes, match_boxes(boxes), progress=False)}


def test_counts_of_every_slicing_add_up_to_the_devkits(mixed):
    matches = match_boxes(mixed)
    scores, found = detection_scores(mixed, matches), (matches.at(2.0) >= 0).sum()
    present = np.bincount(mixed.truth.labels, minlength=10)
    result = by_name(mixed)
    assert list(result) == [
        'distance',
        'speed',
        'camera seam',
        'frame of the scene',
        'conditions',
        'location',
        'visibility',
        'LiDAR points',
    ]
    for slicing in result.values():
        assert np.array_equal(sum(part.true_counts for part in slicing.slices), present)
        matched = sum(part.recall * part.true_counts.sum() for part in slicing.slices if part.true_counts.any())
        assert matched == pytest.approx(found)
        assert slicing.of_truth_only == (slicing.name in ('visibility', 'LiDAR points'))
        if not slicing.of_truth_only:
            counts = sum(part.predicted_counts for part in slicing.slices)
            assert np.array_equal(counts, np.bincount(mixed.predictions.labels, minlength=10))
    day = result['conditions'].slices[0]  # where all boxes of this world are
    assert day.name == 'day' and day.aps[present > 0] == pytest.approx(scores.aps[present > 0])
    assert day.mean_ap == pytest.approx(scores.aps[present > 0].mean())
    frames = [part.true_counts.sum() for part in result['frame of the scene'].slices]
    assert len(frames) == 4 and min(frames) > 0 and frames[3] > max(frames[:3])


def test_a_box_is_in_the_slice_of_the_true_box_that_it_matches():
    boxes = scored_boxes(
        [(0, 'car', 9.5, 0.0), (0, 'car', 15.0, 0.0), (0, 'bus', 35.0, 0.0)],
        [
            (0, 'car', 10.5, 0.0, 0.9),  # 1 m from the one at 9.5 m: counts there at 2 and 4 m, itself at 0.5 and 1 m
            (0, 'car', 15.0, 0.0, 0.8),
            (0, 'car', 25.0, 0.0, 0.7),  # false
        ],
    )
    near, middle, far, beyond, _ = by_name(boxes)['distance'].slices
    assert near.name == '0-10 m' and near.aps[CAR] == pytest.approx([0, 0, 1, 1])
    assert near.predicted_counts[CAR] == middle.predicted_counts[CAR] == far.predicted_counts[CAR] == 1
    assert middle.aps[CAR, 2:] == pytest.approx([1, 1])
    assert np.isnan(far.mean_ap) and np.isnan(far.aps).all() and np.isnan(far.recall)
    assert (beyond.recalls[BUS], beyond.recall, beyond.mean_ap) == (0, 0, 0)
    assert near.mean_errors[0] == pytest.approx(1.0) and np.isnan(beyond.mean_errors).all()


@pytest.mark.parametrize(
    ('description', 'conditions'),
    [
        ('Night, after rain, many peds', 'night, rain'),
        ('Rain, jaywalker', 'day, rain'),
        ('Difficult lighting, night', 'night'),
        ('', 'day'),
    ],
)
def test_conditions_by_words(description, conditions):
    assert conditions_of(description) == conditions


def test_the_seam_of_two_cameras():
    def view(degrees):  # a camera at the origin that sees 30 degrees to both sides of its axis, which is in the plane
        c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        matrix = np.eye(4)
        matrix[:3, :3] = [[s, -c, 0], [0, 0, -1], [c, s, 0]]  # x right, y down, z along the axis
        return HorizontalView(matrix, -np.pi / 6, np.pi / 6)

    angles = np.array([0, 24, 26, 30, 34, 36, 60, 94, 96, 180])
    places = np.column_stack([20 * np.cos(np.deg2rad(angles)), 20 * np.sin(np.deg2rad(angles)), np.full(10, 50.0)])
    # The images of cameras at 0 and 60 degrees touch at 30 degrees, so the seam is from 25 to 35.
    assert cameras_near(places, [view(0), view(60)]).tolist() == [1, 1, 2, 2, 2, 1, 1, 1, 0, 0]
    assert cameras_near(places, []).tolist() == [0] * 10


def test_views_of_a_keyframe_cover_what_the_cameras_see(tables, mixed):
    views = camera_views(tables, mixed.keyframes.tokens[0])
    assert len(views) == 6
    assert all(0.4 < view.right < 1.2 and -1.2 < view.left < -0.4 for view in views)
    assert set(mixed.truth.cameras.tolist()) <= {0, 1, 2} and (mixed.truth.cameras > 0).mean() > 0.9
