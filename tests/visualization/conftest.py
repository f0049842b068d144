"""Keyframes of the synthetic world, and their annotations as a submission."""

import json

import pytest
from nuscenes import NuScenes
from nuscenes.eval.detection.utils import category_to_detection_name

from bevformer_plugin.datasets.infos import load_infos
from bevformer_plugin.visualization import FrameSource


@pytest.fixture(scope='package')
def perfect_results(synthetic_root, info_files, tmp_path_factory):
    """A submission made of the devkit's annotations with points, score 0.9, in no order."""
    nusc = NuScenes('v1.0-mini', str(synthetic_root), verbose=False)
    results = {}
    for info in load_infos(info_files['mini_val'])['data_list']:
        sample = nusc.get('sample', info['token'])
        results[info['token']] = entries = []
        for token in reversed(sample['anns']):
            annotation = nusc.get('sample_annotation', token)
            name = category_to_detection_name(annotation['category_name'])
            if name is not None and annotation['num_lidar_pts'] + annotation['num_radar_pts'] > 0:
                entries.append(
                    {
                        **{key: annotation[key] for key in ('sample_token', 'translation', 'size', 'rotation')},
                        'velocity': nusc.box_velocity(token)[:2].tolist(),
                        'detection_name': name,
                        'detection_score': 0.9,
                        'attribute_name': '',
                    }
                )
    path = tmp_path_factory.mktemp('results') / 'results_nusc.json'
    path.write_text(json.dumps({'meta': {}, 'results': results}))
    return path


@pytest.fixture(scope='package')
def source(synthetic_root, info_files, perfect_results):
    """The synthetic validation keyframes with their annotations as predictions."""
    return FrameSource(synthetic_root, info_files['mini_val'], perfect_results)
