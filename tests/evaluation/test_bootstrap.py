"""Intervals of scores: what they hold, that runs are compared on the same scenes, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from bevformer_plugin.evaluation import bootstrap_scores, detection_scores, match_boxes

from .hand_made_boxes import scored_boxes


def run(found):
    """Ten scenes of two cars, of which each scene finds 0, 1 or 2; the score of a found one falls with the scene."""
    truth = [(scene, 'car', 10.0 * side, 5.0) for scene in range(10) for side in (1, 2)]
    predictions = [
        (scene, 'car', 10.0 * (side + 1), 5.0, 0.9 - 0.05 * scene)
        for scene, count in enumerate(found)
        for side in range(count)
    ]
    return scored_boxes(truth, predictions)


MIXED, BETTER, WORSE = (run([0, 1, 2, 2, 1] * 2), run([2] * 10), run([1] * 10))


def intervals(*runs, draws=400, seed=0):
    return bootstrap_scores(runs, [match_boxes(boxes) for boxes in runs], draws, seed, progress=False)


def test_an_interval_holds_the_value_and_is_repeatable():
    (mixed,), differences = intervals(MIXED)
    assert differences == [] and (mixed.draws, mixed.seed, mixed.scenes) == (400, 0, 10)
    nds = mixed.headline['NDS']
    assert nds.value == pytest.approx(detection_scores(MIXED, match_boxes(MIXED)).nds)
    assert nds.low < nds.value < nds.high
    assert list(mixed.class_aps) == ['car']
    # All found boxes are right, so AP follows the recall, whose spread over draws of ten scenes is known.
    recall, spread = 0.6, np.std([0, 0.5, 1, 1, 0.5]) / np.sqrt(10)
    ap = mixed.class_aps['car']
    assert ap.value == pytest.approx((recall - 0.1) / 0.9, abs=0.01)
    assert ap.low == pytest.approx((recall - 1.96 * spread - 0.1) / 0.9, abs=0.06)
    assert ap.high == pytest.approx((recall + 1.96 * spread - 0.1) / 0.9, abs=0.06)
    assert intervals(MIXED) == intervals(MIXED)
    assert intervals(MIXED, seed=1)[0][0].headline['NDS'] != nds


def test_differences_are_taken_draw_by_draw():
    _, (same, better) = intervals(MIXED, MIXED, BETTER)
    assert {(part.value, part.low, part.high) for part in same.headline.values()} == {(0.0, 0.0, 0.0)}
    assert better.headline['mAP'].excludes_zero and better.headline['mAP'].low > 0
    _, (worse,) = intervals(BETTER, WORSE)
    ap = worse.class_aps['car']
    assert ap.high < 0 and ap.value == pytest.approx(-0.5 / 0.9, abs=0.01)
    assert ap.low == pytest.approx(ap.high), 'every scene loses the same, so there is no noise in the difference'


def test_draws_are_scored_as_the_scenes_alone(mixed):
    matches = match_boxes(mixed)
    (result,), _ = bootstrap_scores([mixed], [matches], 200, progress=False)
    assert result.scenes == 2
    alone = []
    for scene in range(2):
        part = replace(
            mixed,
            truth=mixed.truth.select(mixed.keyframes.scenes[mixed.truth.frames] == scene),
            predictions=mixed.predictions.select(mixed.keyframes.scenes[mixed.predictions.frames] == scene),
        )
        assert 0 in part.truth.labels
        alone.append(detection_scores(part, match_boxes(part)).class_aps[0])
    ap = result.class_aps['car']
    # A draw may have the same scene twice, which changes the steps of the curve a little.
    assert ap.low == pytest.approx(min(*alone, ap.value), abs=0.005)
    assert ap.high == pytest.approx(max(*alone, ap.value), abs=0.005)


def test_a_class_that_a_draw_lacks_keeps_its_value():
    boxes = scored_boxes(
        [(0, 'car', 10.0, 0.0), (1, 'car', 10.0, 0.0), (1, 'bus', 20.0, 0.0)],
        [(0, 'car', 10.0, 0.0, 0.9), (1, 'car', 10.0, 0.0, 0.9), (1, 'bus', 20.0, 0.0, 0.9)],
    )
    (result,), _ = intervals(boxes)
    assert {result.headline['NDS'].low, result.headline['NDS'].high} == {result.headline['NDS'].value}


def test_one_scene_has_no_interval():
    (result,), _ = intervals(scored_boxes([(0, 'car', 10.0, 0.0)], [(0, 'car', 10.0, 0.0, 0.9)]))
    assert np.isnan(result.headline['NDS'].low) and np.isnan(result.headline['NDS'].high)
    assert not result.headline['NDS'].excludes_zero


def test_other_samples_and_no_draws_are_refused():
    fewer = scored_boxes([(0, 'car', 10.0, 0.0)], [])
    with pytest.raises(ValueError, match=r'are of other samples \(9 and 0 are in one of them only\)'):
        intervals(MIXED, fewer)
    with pytest.raises(ValueError, match='at least one draw, not 0'):
        intervals(MIXED, draws=0)
