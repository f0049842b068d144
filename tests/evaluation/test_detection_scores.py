"""Scores computed on arrays are the devkit's: of mixed submissions, of real ones, and of empty ones."""

import json

import numpy as np
import pytest
from nuscenes.eval.detection.constants import DETECTION_NAMES

from bevformer_plugin.evaluation import (
    DISTANCES,
    ERRORS,
    bootstrap_scores,
    class_confusion,
    class_curves,
    detection_scores,
    error_budget,
    evaluate_results,
    frame_scores,
    load_scored_boxes,
    match_boxes,
    metric_values,
    score_reliability,
    slicings,
)


def assert_scores_are(scores, summary, tolerance):
    headline = scores.headline()
    expected = metric_values(summary)
    assert headline == pytest.approx({name: expected[name] for name in headline}, abs=tolerance)
    for label, name in enumerate(DETECTION_NAMES):
        aps = {float(distance): ap for distance, ap in summary['label_aps'][name].items()}
        assert scores.aps[label] == pytest.approx([aps[distance] for distance in DISTANCES], abs=tolerance)
        errors = [summary['label_tp_errors'][name][error] for error in ERRORS]
        assert scores.errors[label] == pytest.approx(errors, abs=tolerance, nan_ok=True)


def test_scores_and_curves_are_the_devkits(mixed, synthetic_root, tmp_path):
    summary = evaluate_results(mixed.path, str(synthetic_root), 'v1.0-mini', out_dir=str(tmp_path))
    matches = match_boxes(mixed)
    scores = detection_scores(mixed, matches)
    assert 0.1 < summary['nd_score'] < 0.8
    assert_scores_are(scores, summary, 1e-12)
    assert list(scores.headline()) == ['NDS', 'mAP', 'mATE', 'mASE', 'mAOE', 'mAVE', 'mAAE']
    details = json.loads((tmp_path / 'metrics_details.json').read_text())
    for curves in class_curves(mixed, matches):
        if not curves.true_count:
            continue
        for number, distance in enumerate(DISTANCES):
            devkits = details[f'{curves.name}:{distance}']
            assert curves.precision[number] == pytest.approx(devkits['precision'], abs=1e-12)
            assert curves.confidence[number] == pytest.approx(devkits['confidence'], abs=1e-12)
        devkits = details[f'{curves.name}:2.0']
        reached = ~np.isnan(curves.errors[0])
        assert curves.errors[0, reached] == pytest.approx(np.array(devkits['trans_err'])[reached], abs=1e-12)
        assert reached.sum() == np.count_nonzero(devkits['confidence'])
    counts = {curves.name: (curves.true_count, curves.predicted_count) for curves in class_curves(mixed, matches)}
    assert sum(true for true, _ in counts.values()) == len(mixed.truth)
    assert sum(predicted for _, predicted in counts.values()) == len(mixed.predictions) == summary['num_predictions']


@pytest.mark.parametrize(
    ('name', 'published'),
    [
        ('TRELPy', 'TRELPy_mini_val_metrics_summary.published.json'),
        ('CC3DT', 'CC3DT_mini_val_metrics_summary.devkit-1.2.0.json'),
    ],
)
def test_real_submissions_score_their_published_metrics(shared_dir, name, published):
    root = shared_dir / 'real' / 'nuscenes'
    if not root.is_dir():
        pytest.skip(f'{root} with real nuScenes tables is not on this machine')
    (boxes,) = load_scored_boxes([root / 'results' / f'{name}_mini_val_results_nusc.json'], str(root), 'v1.0-mini')
    assert len(boxes.truth) == 3393 and len(boxes.predictions) == {'TRELPy': 905, 'CC3DT': 8630}[name]
    matches = match_boxes(boxes)
    scores = detection_scores(boxes, matches)
    assert_scores_are(scores, json.loads((root / 'results' / published).read_text()), 1e-6)
    for slicing in slicings(boxes, matches, progress=False):
        assert sum(part.true_counts.sum() for part in slicing.slices) == len(boxes.truth)
        if not slicing.of_truth_only:
            assert sum(part.predicted_counts.sum() for part in slicing.slices) == len(boxes.predictions)
    budget = error_budget(boxes, matches)
    assert budget.scores.nds == scores.nds
    assert np.array_equal(sum(share.false_positives for share in budget.shares), budget.false_positives)
    assert np.array_equal(sum(share.misses for share in budget.shares), budget.misses)
    assert budget.false_positives[2] == len(boxes.predictions) - (len(boxes.truth) - budget.misses[2])
    interval = bootstrap_scores([boxes], [matches], progress=False)[0][0].headline['NDS']
    assert interval.low <= interval.value <= interval.high and interval.value == scores.nds


def test_a_submission_without_boxes_loses_all_by_misses(true_results, load_submission):
    boxes = load_submission({token: [] for token in true_results})
    matches = match_boxes(boxes)
    assert detection_scores(boxes, matches).nds == 0
    budget = error_budget(boxes, matches)
    shares = {share.cause: share.share for share in budget.shares}
    assert shares.pop('missed') == pytest.approx(1) and set(shares.values()) == {0.0}
    assert budget.misses.tolist() == [len(boxes.truth)] * 4 and not budget.false_positives.any()
    assert class_confusion(boxes, matches).missed.sum() == len(boxes.truth)
    (reliability,) = score_reliability(boxes, matches)
    assert not reliability.counts.any() and np.isnan(reliability.calibration_error)
    assert {frame.score for frame in frame_scores(boxes, matches)} == {0.0}
    for slicing in slicings(boxes, matches, progress=False):
        assert {part.recall for part in slicing.slices if part.true_counts.any()} == {0.0}
    assert bootstrap_scores([boxes], [matches], 10, progress=False)[0][0].headline['NDS'].high == 0
