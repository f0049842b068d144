"""Submission entries: attributes, files that are refused."""

import json

import pytest

from bevformer_plugin.evaluation import load_results, write_results
from bevformer_plugin.evaluation.results import attribute_of

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


NAN, INFINITY = float('nan'), float('inf')


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
