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


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('{"results": {}', 'not JSON'),
        (json.dumps({'results': {}}), "'meta'"),
        (json.dumps({'meta': {}, 'results': {'a': [{**ENTRY, 'detection_name': 'tram'}]}}), "'tram'"),
        (json.dumps({'meta': {}, 'results': {'a': [{**ENTRY, 'translation': [float('nan'), 0, 0]}]}}), 'not finite'),
        (json.dumps({'meta': {}, 'results': {'a': [{**ENTRY, 'size': [0, 1, 1]}]}}), 'positive size'),
        (json.dumps({'meta': {}, 'results': {'a': [ENTRY] * 501}}), 'at most 500'),
    ],
)
def test_damaged_submissions_are_refused(tmp_path, content, message):
    path = tmp_path / 'results.json'
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        load_results(path)


def test_a_missing_submission_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'nowhere\.json'):
        load_results(tmp_path / 'nowhere.json')
