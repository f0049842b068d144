"""The error budget: planted faults are blamed on the right cause, and every wrong or missing box has one cause."""

import numpy as np
import pytest
from nuscenes.eval.detection.constants import DETECTION_NAMES

from bevformer_plugin.evaluation import CAUSES, error_budget, match_boxes

from .hand_made_boxes import scored_boxes
from .true_submissions import (
    cars_called_pedestrians,
    each_box_twice,
    every_other_box,
    pedestrians_called_cars,
    shifted,
    sizes_swapped,
    velocities_off,
    yaws_turned,
)

CAR = DETECTION_NAMES.index('car')


def budget_of(boxes):
    """The budget of a submission, whose causes add up."""
    matches = match_boxes(boxes)
    budget = error_budget(boxes, matches)
    assert tuple(share.cause for share in budget.shares) == CAUSES
    assert np.array_equal(sum(share.false_positives for share in budget.shares), budget.false_positives)
    assert np.array_equal(sum(share.misses for share in budget.shares), budget.misses)
    assert np.array_equal(budget.false_positives, (matches.truth < 0).sum(axis=1))
    return budget, {share.cause: share for share in budget.shares}


def assert_blamed(boxes, cause):
    """Nearly all that the submission lost is of one cause, and little of any other."""
    budget, shares = budget_of(boxes)
    assert budget.nds_lost > 0.02
    assert shares.pop(cause).share > 0.9
    assert max(share.share for share in shares.values()) < 0.1


def test_a_perfect_submission_has_an_empty_budget(true_results, load_submission):
    budget, shares = budget_of(load_submission(true_results))
    assert budget.nds_lost == pytest.approx(0, abs=1e-9)
    assert not budget.false_positives.any() and not budget.misses.any() and not budget.class_ap_gains.any()
    assert {share.share for share in shares.values()} == {0.0}
    assert max(abs(share.nds_gain) for share in shares.values()) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ('fault', 'cause'),
    [
        (yaws_turned, 'orientation'),
        (sizes_swapped, 'size'),
        (cars_called_pedestrians, 'class'),
        (pedestrians_called_cars, 'class'),
        (each_box_twice, 'duplicate'),
        (shifted, 'localisation'),
        (velocities_off, 'velocity'),
        (every_other_box, 'missed'),
    ],
)
def test_planted_faults_are_blamed_on_their_cause(true_results, load_submission, fault, cause):
    assert_blamed(load_submission(fault(true_results)), cause)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('fault', 'cause'),
    [
        (yaws_turned, 'orientation'),
        (sizes_swapped, 'size'),
        (cars_called_pedestrians, 'class'),
        (each_box_twice, 'duplicate'),
        (shifted, 'localisation'),
    ],
)
def test_planted_faults_in_real_crowds(real_truth, load_real, fault, cause):
    assert_blamed(load_real(fault(real_truth)), cause)


def test_a_mixed_submission_has_several_causes(mixed):
    budget, shares = budget_of(mixed)
    assert shares['localisation'].nds_gain > 0 and shares['velocity'].nds_gain > 0 and shares['missed'].misses.all()
    assert 0 < budget.scores.nds < budget.perfect.nds
    for share in shares.values():
        assert share.nds_gain == pytest.approx(share.mended.nds - budget.scores.nds)
        assert share.share == pytest.approx(share.nds_gain / budget.nds_lost)
    localisation = budget.class_ap_gains[CAUSES.index('localisation')]
    assert localisation.mean() == pytest.approx(shares['localisation'].ap_gain)
    assert shares['localisation'].ap_gains.mean() == pytest.approx(shares['localisation'].ap_gain)


def test_one_box_of_each_cause():
    _, shares = budget_of(
        scored_boxes(
            [
                (0, 'car', 10.0, 0.0),
                (0, 'car', 20.0, 0.0),
                (0, 'truck', 30.0, 0.0),
                (0, 'bus', 40.0, 0.0),
            ],
            [
                (0, 'car', 10.0, 0.0, 0.9),
                (0, 'car', 10.0, 1.5, 0.8),  # duplicate
                (0, 'car', 20.0, 1.5, 0.7),  # localisation, at 0.5 and 1 m
                (0, 'car', 30.0, 1.0, 0.6),  # class
                (0, 'car', 0.0, 20.0, 0.5),  # background
            ],
        )
    )
    assert shares['duplicate'].false_positives.tolist() == [1, 1, 1, 1]
    assert shares['localisation'].false_positives.tolist() == [1, 1, 0, 0]
    assert shares['localisation'].misses.tolist() == [1, 1, 0, 0]
    assert shares['class'].false_positives.tolist() == shares['class'].misses.tolist() == [1, 1, 1, 1]
    assert shares['background'].false_positives.tolist() == [1, 1, 1, 1]
    assert shares['missed'].misses.tolist() == [1, 1, 1, 1]
    assert shares['missed'].mended.class_aps[DETECTION_NAMES.index('bus')] == pytest.approx(1)
    assert shares['class'].mended.class_aps[DETECTION_NAMES.index('truck')] == pytest.approx(0.5)  # 1 m off


def test_what_lies_near_a_found_object():
    _, shares = budget_of(
        scored_boxes(
            [(0, 'car', 10.0, 0.0)],
            [
                (0, 'car', 10.0, 0.0, 0.9),
                (0, 'car', 13.0, 0.0, 0.8),  # 3 m from a car that is found: badly placed
                (0, 'truck', 11.0, 0.0, 0.7),  # a truck where a car is found: the wrong class
                (0, 'truck', 13.0, 0.0, 0.7),  # nothing of its class within 4 m, nothing at all within 2 m
            ],
        )
    )
    assert [int(shares[cause].false_positives[0]) for cause in CAUSES[:4]] == [1, 1, 0, 1]
    assert shares['localisation'].mended.class_aps[CAR] == pytest.approx(1)


def test_a_crowd_keeps_its_partners():
    """Boxes of a row of six objects 1 m apart, all shifted by 1.5 m along the row, are each for their own object."""
    truth = [(0, 'pedestrian', 5.0 + number, 5.0) for number in range(6)]
    predictions = [(0, 'pedestrian', x + 1.5, y, 0.5 + 0.05 * number) for number, (_, _, x, y) in enumerate(truth)]
    budget, shares = budget_of(scored_boxes(truth, predictions))
    mended = shares['localisation'].mended
    assert mended.class_aps[DETECTION_NAMES.index('pedestrian')] == pytest.approx(1)
    assert mended.errors[DETECTION_NAMES.index('pedestrian'), 0] == pytest.approx(0)
    assert shares['missed'].misses.tolist() == [0, 0, 0, 0]
    assert budget.scores.errors[DETECTION_NAMES.index('pedestrian'), 0] > 0.4
