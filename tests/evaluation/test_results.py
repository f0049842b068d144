"""Submission entries: attributes, files that are refused."""

import json

import pytest
from nuscenes.eval.detection.constants import DETECTION_NAMES

from bevformer_plugin.atomic_write import refuse_unwritable, refuse_unwritable_folder
from bevformer_plugin.evaluation import (
    MEAN_ERRORS,
    NuScenesDevkitMetric,
    comparison_table,
    load_results,
    write_results,
)
from bevformer_plugin.evaluation.devkit_evaluation import SCORES
from bevformer_plugin.evaluation.results import attribute_of

NAN, INFINITY = float('nan'), float('inf')
ENTRY = dict(
    sample_token='a',
    translation=[0, 0, 0],
    size=[1, 1, 1],
    rotation=[1, 0, 0, 0],
    velocity=[0, 0],
    detection_name='car',
    detection_score=0.5,
    attribute_name='vehicle.parked',
)


def test_attributes_follow_class_and_speed():
    assert attribute_of('car', 3.0) == 'vehicle.moving' and attribute_of('car', 0.1) == 'vehicle.parked'
    assert attribute_of('bicycle', 3.0) == 'cycle.with_rider'
    assert attribute_of('pedestrian', 0.0) == 'pedestrian.standing'
    assert attribute_of('barrier', 3.0) == ''


def test_results_survive_the_file(tmp_path):
    write_results({'a': [ENTRY], 'b': []}, tmp_path / 'deeper' / 'results.json')
    assert load_results(tmp_path / 'deeper' / 'results.json') == {'a': [ENTRY], 'b': []}


def test_scores_go_with_the_submission_that_they_are_of(tmp_path):
    path, scores = tmp_path / 'results.json', tmp_path / 'metrics_summary.json'
    scores.write_text('of another submission in this folder')
    write_results({'a': [ENTRY]}, path, SCORES)
    assert scores.exists()
    write_results({'a': []}, path, SCORES)
    assert not scores.exists() and load_results(path) == {'a': []}


def test_detections_that_are_only_written_are_checked_as_well(tmp_path):
    metric = NuScenesDevkitMetric(
        'root', 'v1.0-mini', 'a.pkl', results_path=str(tmp_path / 'a.json'), format_only=True
    )
    with pytest.raises(ValueError, match=r'detections of sample a: detection_score of box 0 is not finite: nan'):
        metric.compute_metrics({'a': [{**ENTRY, 'detection_score': NAN}]})
    assert not (tmp_path / 'a.json').exists()
    metric.compute_metrics({'a': [ENTRY]})
    assert load_results(tmp_path / 'a.json') == {'a': [ENTRY]}


def test_files_that_could_not_be_written_are_refused_and_nothing_is_made(tmp_path):
    (tmp_path / 'file').touch()
    refuse_unwritable(tmp_path / 'new' / 'results.json')
    refuse_unwritable_folder(tmp_path / 'new')
    assert not (tmp_path / 'new').exists()
    with pytest.raises(
        OSError, match=r'results.json cannot be written \(.*file is a file\): write elsewhere with --out'
    ):
        refuse_unwritable(tmp_path / 'file' / 'deeper' / 'results.json')
    with pytest.raises(OSError, match=r'nothing can be written to /proc/new .*: write elsewhere with --out'):
        refuse_unwritable_folder('/proc/new')


def test_a_comparison_of_different_samples_warns():
    summary = {'nd_score': 0.1, 'mean_ap': 0.1, 'tp_errors': dict.fromkeys(MEAN_ERRORS.values(), 1.0)}
    summary |= {'mean_dist_aps': dict.fromkeys(DETECTION_NAMES, 0.1)}
    summary |= {'num_samples': 81, 'num_split_samples': 81, 'true_boxes': 'points'}
    assert 'warning' not in comparison_table({'a': summary, 'b': summary})
    table = comparison_table({'a': summary, 'b': {**summary, 'num_samples': 40}}).splitlines()
    assert table[-3:] == [
        'warning: these scores are not of the same samples or true boxes, and do not compare:',
        "a  81 of 81 samples of the split, true boxes by 'points'",
        "b  40 of 81 samples of the split, true boxes by 'points'",
    ]


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('{"results": {}', 'not JSON'),
        (json.dumps([ENTRY]), "'meta' and 'results' at the top"),
        (json.dumps({'results': {}}), "'meta'"),
        (json.dumps({'meta': {}, 'results': [ENTRY]}), "'results' must be an object"),
        ('{"meta": {}, "results": {"a": [], "a": []}}', "key 'a' is given twice"),
        (json.dumps({'meta': {}, 'results': {'a': ENTRY}}), 'sample a has no list of boxes'),
        (json.dumps({'meta': {}, 'results': {'a': [[1, 2]]}}), 'sample a has no list of boxes'),
        (json.dumps({'meta': {}, 'results': {'a': [ENTRY] * 501}}), 'sample a has 501 boxes, at most 500'),
        (json.dumps({'meta': {}, 'results': {'b': [ENTRY]}}), "sample b: box 0 has sample_token 'a', another one"),
    ],
)
def test_damaged_submissions_are_refused(tmp_path, content, message):
    path = tmp_path / 'results.json'
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        load_results(path)


@pytest.mark.parametrize('key', sorted(ENTRY))
def test_boxes_that_lack_something_are_refused(tmp_path, key):
    path = tmp_path / 'results.json'
    entry = {name: value for name, value in ENTRY.items() if name != key}
    path.write_text(json.dumps({'meta': {}, 'results': {'a': [ENTRY, entry]}}))
    with pytest.raises(ValueError, match=f'results.json: sample a: box 1 lacks {key}'):
        load_results(path)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'detection_name': 'tram'}, "box 1 is of class 'tram'"),
        ({'detection_name': None}, 'box 1 is of class None'),
        ({'attribute_name': 'vehicle.flying'}, "box 1 has attribute_name 'vehicle.flying'"),
        ({'translation': [NAN, 0, 0]}, 'translation of box 1 is not finite'),
        ({'translation': [0, 0]}, r'translation of box 1 is \[0, 0\], not 3 numbers'),
        ({'translation': 'here'}, 'translation of box 1 is .here., not 3 numbers'),
        ({'translation': ['0', '0', '0']}, 'translation of box 1 is .* not 3 numbers'),
        ({'size': [0, 1, 1]}, 'size of box 1 is not of positive size'),
        ({'size': [1, -1, 1]}, 'size of box 1 is not of positive size'),
        ({'size': [1, INFINITY, 1]}, 'size of box 1 is not finite'),
        ({'size': None}, 'size of box 1 is None, not 3 numbers'),
        ({'rotation': [0, 0, 0, 0]}, 'rotation of box 1 is no rotation'),
        ({'rotation': [1, 0, 0]}, 'rotation of box 1 is .* not 4 numbers'),
        ({'velocity': [INFINITY, 0]}, 'velocity of box 1 is not finite'),
        ({'velocity': [0, 0, 0]}, 'velocity of box 1 is .* not 2 numbers'),
        ({'detection_score': 1.5}, r'detection_score of box 1 is not in \[0, 1\]: 1.5'),
        ({'detection_score': -0.1}, r'detection_score of box 1 is not in \[0, 1\]'),
        ({'detection_score': NAN}, 'detection_score of box 1 is not finite'),
        ({'detection_score': '0.5'}, 'detection_score of box 1 is .0.5., not a number'),
    ],
)
def test_boxes_that_cannot_be_are_refused(tmp_path, change, message):
    path = tmp_path / 'results.json'
    path.write_text(json.dumps({'meta': {}, 'results': {'a': [ENTRY, {**ENTRY, **change}]}}))
    with pytest.raises(ValueError, match=rf'results\.json: sample a: {message}'):
        load_results(path)


def test_a_missing_submission_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'nowhere\.json'):
        load_results(tmp_path / 'nowhere.json')
