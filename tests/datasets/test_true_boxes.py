"""Which annotated objects count: the rule of training targets, evaluation and pictures."""

import numpy as np
import pytest

from bevformer_plugin.datasets.infos import TRUE_BOX_RULES, counted_boxes
from bevformer_plugin.visualization import FrameSource
from tests.helpers.annotations import has_points

POINTS = np.array([0, 3, 0, 1])
VISIBILITY = np.array([4, 1, 2, 1])


def test_rules():
    assert counted_boxes('points', POINTS, VISIBILITY).tolist() == [False, True, False, True]
    assert counted_boxes('visibility', POINTS, VISIBILITY).tolist() == [True, False, True, False]
    assert counted_boxes('all', POINTS, VISIBILITY).tolist() == [True] * 4
    for rule in TRUE_BOX_RULES:
        assert counted_boxes(rule, np.array([]), np.array([])).tolist() == []


def test_rules_that_cannot_be():
    with pytest.raises(ValueError, match="one of points, visibility, all, not 'seen'"):
        counted_boxes('seen', POINTS, VISIBILITY)
    with pytest.raises(ValueError, match='1 of 4 boxes have no known visibility'):
        counted_boxes('visibility', POINTS, np.array([4, 0, 2, 1]))
    with pytest.raises(ValueError, match="none of 4 boxes counts by true_boxes='points': data without LiDAR"):
        counted_boxes('points', POINTS * 0, VISIBILITY)
    with pytest.raises(ValueError, match="none of 2 boxes counts by true_boxes='visibility'"):
        counted_boxes('visibility', POINTS[:2], np.array([1, 1]))


def test_infos_know_points_and_visibility(read_infos, synthetic_root):
    instances = [instance for entry in read_infos('mini_train')['data_list'] for instance in entry['instances']]
    assert {instance['visibility'] for instance in instances} == {1, 2, 3, 4}


@pytest.mark.parametrize('rule', TRUE_BOX_RULES)
def test_training_targets_and_pictures(build_dataset, read_infos, info_files, synthetic_root, rule):
    dataset = build_dataset(true_boxes=rule, queue_length=1)
    source = FrameSource(synthetic_root, info_files['mini_train'], rule=rule)
    total = 0
    for index, entry in enumerate(read_infos('mini_train')['data_list']):
        counted = [
            instance
            for instance in entry['instances']
            if rule == 'all'
            or (rule == 'points' and has_points(instance))
            or (rule == 'visibility' and instance['visibility'] >= 2)
        ]
        centres = np.array([instance['bbox_3d'][:3] for instance in counted]).reshape(-1, 3)
        targets = dataset[index]['data_samples'].gt_instances_3d.bboxes_3d
        np.testing.assert_allclose(targets.gravity_center, centres, atol=1e-4)
        np.testing.assert_allclose(source.frame(entry['token']).truth.values[:, :3], centres)
        total += len(counted)
    assert total == {'points': 404, 'visibility': 346, 'all': 665}[rule]


def test_camera_only_data_needs_another_rule(build_dataset, read_infos, capsys):
    infos = read_infos('mini_train')
    for entry in infos['data_list']:
        for instance in entry['instances']:
            instance.update(num_lidar_pts=0, num_radar_pts=0)
    with pytest.raises(ValueError, match="none of 665 boxes counts by true_boxes='points': data without LiDAR"):
        build_dataset(infos)
    assert build_dataset(infos, true_boxes='all').true_boxes == 'all'
    for instance in infos['data_list'][3]['instances']:
        instance['visibility'] = 0
    with pytest.raises(ValueError, match='boxes have no known visibility: make infos from tables'):
        build_dataset(infos, true_boxes='visibility')
    with pytest.raises(ValueError, match='true_boxes must be one of points, visibility, all'):
        build_dataset(infos, true_boxes='lidar')


def test_infos_without_boxes_are_for_test_alone(build_dataset, read_infos):
    infos = read_infos('mini_train')
    for entry in infos['data_list']:
        entry['instances'] = []
    with pytest.raises(ValueError, match='holds no boxes to train on: give the infos of a training split'):
        build_dataset(infos)
    assert len(build_dataset(infos, test_mode=True, pipeline=[])) == 12


def test_the_base_config_states_the_rule_once(base_config):
    datasets = [base_config[f'{part}_dataloader'].dataset for part in ('train', 'val', 'test')]
    evaluators = [base_config[f'{part}_evaluator'] for part in ('val', 'test')]
    assert {part.true_boxes for part in (*datasets, *evaluators)} == {base_config.true_boxes} == {'points'}
