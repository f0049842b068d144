"""Submission entries: the published code's numbers, attributes, files that are refused."""
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet3d.structures import LiDARInstance3DBoxes
from mmengine.structures import InstanceData

from bevformer_plugin.evaluation import detections_to_results, load_results, write_results
from bevformer_plugin.evaluation.results import attribute_of
from bevformer_plugin.geometry import boxes_from_old_convention

REFERENCE = Path(__file__).resolve().parents[1] / 'data' / 'reference'
CLASSES = ['car', 'truck', 'construction_vehicle', 'bus', 'trailer', 'barrier', 'motorcycle', 'bicycle', 'pedestrian',
           'traffic_cone']
ENTRY = dict(sample_token='a', translation=[0, 0, 0], size=[1, 1, 1], rotation=[1, 0, 0, 0], velocity=[0, 0],
             detection_name='car', detection_score=0.5, attribute_name='vehicle.parked')


def test_entries_equal_the_published_codes():
    stream = np.load(REFERENCE / 'bevformer_tiny.rig.stream.npz')
    published = json.loads((REFERENCE / 'bevformer_tiny.rig.results.json').read_text())
    boxes = boxes_from_old_convention(torch.from_numpy(stream['f0.boxes']))
    detections = InstanceData(bboxes_3d=LiDARInstance3DBoxes(boxes, box_dim=9),
                              scores_3d=torch.from_numpy(stream['f0.scores']),
                              labels_3d=torch.from_numpy(stream['f0.labels']).long())
    meta = dict(sample_idx='a', **{key: np.array(published[key]) for key in ('lidar2ego', 'ego2global')})
    entries = detections_to_results(detections, meta, CLASSES)
    assert [e['detection_name'] for e in entries] == [e['detection_name'] for e in published['boxes']]
    for key in ('translation', 'size', 'velocity'):
        np.testing.assert_allclose([e[key] for e in entries], [e[key] for e in published['boxes']], atol=2e-4)
    ours, theirs = (np.array([e['rotation'] for e in boxes]) for boxes in (entries, published['boxes']))
    np.testing.assert_allclose(np.abs((ours * theirs).sum(-1)), 1, atol=1e-6)  # q and -q are one rotation
    np.testing.assert_allclose([e['detection_score'] for e in entries],
                               [e['detection_score'] for e in published['boxes']], atol=1e-6)


def test_attributes_follow_class_and_speed():
    assert attribute_of('car', 3.0) == 'vehicle.moving' and attribute_of('car', 0.1) == 'vehicle.parked'
    assert attribute_of('bicycle', 3.0) == 'cycle.with_rider'
    assert attribute_of('pedestrian', 0.0) == 'pedestrian.standing'
    assert attribute_of('barrier', 3.0) == ''


def test_results_survive_the_file(tmp_path):
    write_results({'a': [ENTRY], 'b': []}, tmp_path / 'deeper' / 'results.json')
    assert load_results(tmp_path / 'deeper' / 'results.json') == {'a': [ENTRY], 'b': []}


@pytest.mark.parametrize(('content', 'message'), [
    ('{"results": {}', 'not JSON'),
    (json.dumps({'results': {}}), "'meta'"),
    (json.dumps({'meta': {}, 'results': {'a': [{**ENTRY, 'detection_name': 'tram'}]}}), "'tram'"),
    (json.dumps({'meta': {}, 'results': {'a': [{**ENTRY, 'translation': [float('nan'), 0, 0]}]}}), 'not finite'),
    (json.dumps({'meta': {}, 'results': {'a': [{**ENTRY, 'size': [0, 1, 1]}]}}), 'positive size'),
    (json.dumps({'meta': {}, 'results': {'a': [ENTRY] * 501}}), 'at most 500'),
])
def test_damaged_submissions_are_refused(tmp_path, content, message):
    path = tmp_path / 'results.json'
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        load_results(path)


def test_a_missing_submission_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'nowhere\.json'):
        load_results(tmp_path / 'nowhere.json')
