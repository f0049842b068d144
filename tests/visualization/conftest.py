"""Keyframes of the synthetic world, and their annotations as a submission."""

import json

import pytest

from bevformer_plugin.datasets.infos import load_infos
from bevformer_plugin.visualization import FrameSource
from tests.helpers.annotations import annotations_as_results


@pytest.fixture(scope='package')
def perfect_results(tables, info_files, tmp_path_factory):
    """A submission made of the devkit's annotations with points, score 0.9, in no order."""
    tokens = [entry['token'] for entry in load_infos(info_files['mini_val'])['data_list']]
    results = {
        token: [{**entry, 'detection_score': 0.9} for entry in reversed(entries)]
        for token, entries in annotations_as_results(tables, tokens).items()
    }
    path = tmp_path_factory.mktemp('results') / 'results_nusc.json'
    path.write_text(json.dumps({'meta': {}, 'results': results}))
    return path


@pytest.fixture(scope='package')
def source(synthetic_root, info_files, perfect_results):
    """The synthetic validation keyframes with their annotations as predictions."""
    return FrameSource(synthetic_root, info_files['mini_val'], perfect_results)
