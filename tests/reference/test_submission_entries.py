"""Detections as the published code writes them for a submission."""

import json

import numpy as np
import pytest
import torch
from mmdet3d.structures import LiDARInstance3DBoxes
from mmengine.structures import InstanceData

from bevformer_plugin.evaluation import detections_to_results
from bevformer_plugin.geometry import boxes_from_old_convention
from tests.helpers.reference_files import CLASSES, files


@pytest.mark.parametrize('path', files('bevformer_*.results.json'))
def test_entries_equal_the_published_codes(path):
    stream = np.load(path.with_name(path.name.replace('.results.json', '.stream.npz')))
    published = json.loads(path.read_text())
    boxes = boxes_from_old_convention(torch.from_numpy(stream['f0.boxes']))
    detections = InstanceData(
        bboxes_3d=LiDARInstance3DBoxes(boxes, box_dim=9),
        scores_3d=torch.from_numpy(stream['f0.scores']),
        labels_3d=torch.from_numpy(stream['f0.labels']).long(),
    )
    meta = dict(sample_idx='a', **{key: np.array(published[key]) for key in ('lidar2ego', 'ego2global')})
    entries = detections_to_results(detections, meta, list(CLASSES))
    assert [e['detection_name'] for e in entries] == [e['detection_name'] for e in published['boxes']]
    for key in ('translation', 'size', 'velocity'):
        np.testing.assert_allclose([e[key] for e in entries], [e[key] for e in published['boxes']], atol=2e-4)
    ours, theirs = (np.array([e['rotation'] for e in boxes]) for boxes in (entries, published['boxes']))
    np.testing.assert_allclose(np.abs((ours * theirs).sum(-1)), 1, atol=1e-6)  # q and -q are one rotation
    np.testing.assert_allclose(
        [e['detection_score'] for e in entries], [e['detection_score'] for e in published['boxes']], atol=1e-6
    )
