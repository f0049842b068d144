"""Scores of what is not quite nuScenes: nothing found, other rules of true boxes, own splits, no LiDAR, no truth."""

import itertools
import json
import math
import shutil
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.dataset import ConcatDataset
from mmengine.registry import DefaultScope
from nuscenes import NuScenes
from nuscenes.eval.detection.config import config_factory
from nuscenes.eval.detection.evaluate import DetectionEval

from bevformer_plugin.datasets import NuScenesTemporalDataset
from bevformer_plugin.datasets.infos import create_nuscenes_infos, load_infos
from bevformer_plugin.evaluation import NuScenesDevkitMetric, evaluate_results, metrics_table, write_results
from tests.helpers.annotations import annotations_as_results, has_points
from tests.helpers.info_files import write_infos
from tests.helpers.processes import run_tool
from tests.helpers.repository import REPO

VERSION = 'v1.0-mini'
CLASSES = list(Config.fromfile(REPO / 'configs' / '_base_' / 'nuscenes.py').class_names)


def truth_in_tables(tables, tokens, counts=has_points):
    """A submission of the tables' annotations, with velocity 0 where it is not known."""
    results = annotations_as_results(tables, tokens, counts)
    for entry in itertools.chain(*results.values()):
        entry['velocity'] = [0.0 if math.isnan(value) else value for value in entry['velocity']]
    return results


@pytest.fixture
def val_tokens(info_files):
    return [entry['token'] for entry in load_infos(info_files['mini_val'])['data_list']]


@pytest.fixture
def submit(tmp_path):
    """Write a submission."""

    def write(results):
        write_results(results, tmp_path / 'results.json')
        return str(tmp_path / 'results.json')

    return write


def test_numbers_are_the_devkits_to_the_digit(synthetic_root, tables, val_tokens, submit, tmp_path):
    results = truth_in_tables(tables, val_tokens)
    for entries in results.values():  # misses, shifts and equal scores of several samples
        del entries[::4]
        for index, entry in enumerate(entries):
            entry['translation'] = [entry['translation'][0] + 0.3 * (index % 5), *entry['translation'][1:]]
            entry['velocity'] = [1.0, 0.5 * (index % 3)]
    path = submit(results)
    ours = evaluate_results(path, str(synthetic_root), VERSION)
    devkit = DetectionEval(
        tables, config_factory('detection_cvpr_2019'), path, 'mini_val', str(tmp_path / 'devkit'), verbose=False
    )
    theirs = devkit.evaluate()[0].serialize()
    assert 0.2 < theirs['nd_score'] < 0.9
    for key in ('nd_score', 'mean_ap', 'tp_errors', 'mean_dist_aps', 'label_aps'):
        assert ours[key] == theirs[key]
    assert json.dumps(ours['label_tp_errors']) == json.dumps(theirs['label_tp_errors'])  # with NaN
    assert ours['true_boxes'] == 'points'


@pytest.mark.parametrize('part', [False, True])
def test_a_submission_without_boxes_scores_zero(synthetic_root, read_infos, val_tokens, submit, tmp_path, part):
    infos = read_infos('mini_val')
    tokens = val_tokens[:4] if part else val_tokens
    infos['data_list'] = [entry for entry in infos['data_list'] if entry['token'] in tokens]
    path = write_infos(tmp_path / 'infos.pkl', infos)
    submission = submit({token: [] for token in tokens})
    summary = evaluate_results(submission, str(synthetic_root), VERSION, infos=str(path))
    assert (summary['nd_score'], summary['mean_ap'], summary['num_predictions']) == (0, 0, 0)
    assert set(summary['tp_errors'].values()) == {1}
    assert 'no predicted box lies within' in metrics_table(summary)


def test_a_validation_that_finds_nothing_scores_zero(synthetic_root, info_files, val_tokens):
    metric = NuScenesDevkitMetric(str(synthetic_root), VERSION, str(info_files['mini_val']))
    metric.results = [(token, []) for token in val_tokens]
    scores = metric.evaluate(len(val_tokens))
    assert scores['nuscenes/NDS'] == 0 and scores['nuscenes/mAP'] == 0


@pytest.mark.parametrize(
    ('rule', 'counts'),
    [('points', has_points), ('visibility', lambda row: row['visibility_token'] in '234'), ('all', lambda row: True)],
)
def test_rules_of_true_boxes(synthetic_root, tables, val_tokens, submit, rule, counts):
    results = truth_in_tables(tables, val_tokens, counts)
    summary = evaluate_results(submit(results), str(synthetic_root), VERSION, true_boxes=rule)
    assert summary['true_boxes'] == rule
    present = [summary['mean_dist_aps'][name] for name in summary['classes_present']]
    assert present == pytest.approx([1.0] * len(present), abs=1e-9)
    other = evaluate_results(
        submit(results), str(synthetic_root), VERSION, true_boxes='all' if rule == 'points' else 'points'
    )
    assert other['mean_ap'] < summary['mean_ap'] - 0.01
    assert ('official scores' in metrics_table(summary)) == (rule != 'points')


def test_classes_that_a_model_does_not_detect_are_said(synthetic_root, tables, info_files, val_tokens, tmp_path):
    truth = truth_in_tables(tables, val_tokens)
    metric = NuScenesDevkitMetric(
        str(synthetic_root), VERSION, str(info_files['mini_val']), results_path=str(tmp_path / 'results.json')
    )
    metric.dataset_meta = {'classes': ['pedestrian', 'car']}
    metric.results = [
        (token, [entry for entry in entries if entry['detection_name'] in ('car', 'pedestrian')])
        for token, entries in truth.items()
    ]
    scores = metric.evaluate(len(val_tokens))
    assert scores['nuscenes/mAP'] == pytest.approx(0.2, abs=1e-6)  # the devkit's, over all ten
    summary = json.loads((tmp_path / 'metrics_summary.json').read_text())
    assert summary['classes_detected'] == ['car', 'pedestrian']
    lines = metrics_table(summary).splitlines()
    assert sum(line.endswith('   not detected') for line in lines) == 8
    assert not any(line.endswith('not detected') for line in lines if line.startswith(('car ', 'pedestrian ')))
    assert 'mAP over the 2 classes that the model detects: 1.0000' in lines
    one = metrics_table({**summary, 'classes_detected': ['bus']})
    assert 'mAP over the 1 class that the model detects: 0.0000' in one
    assert 'detect' not in metrics_table({**summary, 'classes_detected': CLASSES})
    assert 'detect' not in metrics_table({**summary, 'classes_detected': None})


@pytest.mark.parametrize(
    ('setting', 'value', 'message'),
    [
        ('data_root', ['a', 'b'], r'data_root must be a text, not \[.*"data_root=\'a,b\'"'),
        ('version', ['a', 'b'], r'version must be a text, .*quotes.*"version=\'a,b\'"'),
        ('version', Path('v1.0-mini'), r'version must be a text, not PosixPath'),
        ('version', 1.0, r'version must be a text, not 1\.0 of type float'),
        ('ann_file', 5, r'ann_file must be a text, not 5'),
        ('split', ['mini_train', 'mini_val'], r'split must be a text, .*"split=\'mini_train,mini_val\'"'),
        ('results_path', ['a', 'b'], 'results_path must be a text'),
        ('format_only', 'no', "format_only must be True or False, not 'no'"),
        ('true_boxes', ['points', 'all'], 'true_boxes must be one of points, visibility, all'),
    ],
)
def test_settings_of_another_type_are_refused(setting, value, message):
    with pytest.raises(ValueError, match=message):
        NuScenesDevkitMetric(**{'data_root': 'root', 'version': VERSION, 'ann_file': 'infos.pkl', setting: value})


def test_paths_may_be_paths(synthetic_root, info_files, val_tokens, tmp_path):
    metric = NuScenesDevkitMetric(
        synthetic_root, VERSION, Path(info_files['mini_val']), results_path=tmp_path / 'results.json'
    )
    metric.check_dataset(evaluated(synthetic_root, info_files['mini_val']))
    metric.results = [(token, []) for token in val_tokens]
    assert metric.evaluate(len(val_tokens))['nuscenes/NDS'] == 0


def evaluated(root, infos, rule='points'):
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        return NuScenesTemporalDataset(
            str(root), str(infos), [], {'classes': CLASSES}, test_mode=True, true_boxes=rule
        )


def test_dataset_and_evaluator_share_the_rule(synthetic_root, info_files):
    dataset = evaluated(synthetic_root, info_files['mini_val'], 'all')
    metric = NuScenesDevkitMetric(str(synthetic_root), VERSION, str(info_files['mini_val']))
    with pytest.raises(ValueError, match="counts true boxes by 'all', the evaluator by 'points'"):
        metric.check_dataset(dataset)
    with pytest.raises(ValueError, match='true_boxes must be one of'):
        NuScenesDevkitMetric(str(synthetic_root), VERSION, str(info_files['mini_val']), true_boxes='lidar')
    metric = NuScenesDevkitMetric(str(synthetic_root), VERSION, str(info_files['mini_val']), true_boxes='all')
    metric.check_dataset(dataset)


def test_datasets_of_another_kind_are_refused(synthetic_root, info_files):
    metric = NuScenesDevkitMetric(str(synthetic_root), VERSION, str(info_files['mini_val']))
    with pytest.raises(ValueError, match='scores detections on a NuScenesTemporalDataset, not on a ConcatDataset'):
        metric.check_dataset(ConcatDataset([evaluated(synthetic_root, info_files['mini_val'])]))


def test_own_splits_and_version(copied_root, change_table, submit, tmp_path):
    names = {'scene-0103': 'drive_1', 'scene-0916': 'drive_2'}
    change_table('scene', lambda rows: [{**row, 'name': names.get(row['name'], 'drive_0')} for row in rows[1:]])
    kept = {row['token'] for row in json.loads((copied_root / VERSION / 'scene.json').read_text())}
    (copied_root / VERSION).rename(copied_root / 'city')
    splits = tmp_path / 'splits.json'
    splits.write_text(json.dumps({'train': ['drive_0'], 'val': ['drive_1', 'drive_2']}))
    infos = create_nuscenes_infos(copied_root, 'city', workers=1, splits_file=splits)
    tokens = [entry['token'] for entry in load_infos(infos['val'])['data_list']]
    assert len(tokens) == 12 and len(kept) == 3
    path = submit(truth_in_tables(NuScenes('city', str(copied_root), verbose=False), tokens))
    with pytest.raises(ValueError, match=r'nuScenes has no version city.*--splits'):
        evaluate_results(path, str(copied_root), 'city')
    summary = evaluate_results(path, str(copied_root), 'city', infos=str(infos['val']))
    assert (summary['num_samples'], summary['num_split_samples']) == (12, 12)
    assert all(summary['mean_dist_aps'][name] == pytest.approx(1) for name in summary['classes_present'])
    with pytest.raises(ValueError, match='are of split val, not train'):
        evaluate_results(path, str(copied_root), 'city', 'train', infos=str(infos['val']))
    with pytest.raises(ValueError, match=r'of nuScenes city, not v1\.0-mini'):
        shutil.copytree(copied_root / 'city', copied_root / VERSION)
        evaluate_results(path, str(copied_root), VERSION, infos=str(infos['val']))
    metric = NuScenesDevkitMetric(str(copied_root), 'city', str(infos['val']))
    metric.check_dataset(evaluated(copied_root, infos['val']))
    shutil.copy(splits, copied_root / 'city')
    assert evaluate_results(path, str(copied_root), 'city')['nd_score'] == summary['nd_score']


def test_without_a_lidar(copied_root, take_out_lidar, submit):
    take_out_lidar()
    infos = create_nuscenes_infos(copied_root, VERSION, workers=1)['mini_val']
    tokens = [entry['token'] for entry in load_infos(infos)['data_list']]
    path = submit(truth_in_tables(NuScenes(VERSION, str(copied_root), verbose=False), tokens))
    summary = evaluate_results(path, str(copied_root), VERSION, infos=str(infos))
    assert all(summary['mean_dist_aps'][name] == pytest.approx(1) for name in summary['classes_present'])
    NuScenesDevkitMetric(str(copied_root), VERSION, str(infos)).check_dataset(evaluated(copied_root, infos))


def test_camera_only_data_has_no_points(copied_root, change_table, submit):
    change_table('sample_annotation', lambda rows: [{**row, 'num_lidar_pts': 0, 'num_radar_pts': 0} for row in rows])
    infos = create_nuscenes_infos(copied_root, VERSION, workers=1)['mini_val']
    tokens = [entry['token'] for entry in load_infos(infos)['data_list']]
    path = submit(truth_in_tables(NuScenes(VERSION, str(copied_root), verbose=False), tokens, lambda row: True))
    with pytest.raises(ValueError, match=r"none of 484 boxes counts by true_boxes='points'.*--true-boxes"):
        evaluate_results(path, str(copied_root), VERSION)
    summary = evaluate_results(path, str(copied_root), VERSION, true_boxes='all')
    assert all(summary['mean_dist_aps'][name] == pytest.approx(1) for name in summary['classes_present'])


def test_no_annotations_are_no_truth(copied_root, change_table, val_tokens, submit):
    for table in ('sample_annotation', 'instance'):
        change_table(table, lambda rows: [])
    infos = create_nuscenes_infos(copied_root, VERSION, workers=1)['mini_val']
    with pytest.raises(ValueError, match=r'no annotations to score against.*tools/test\.py --format-only'):
        evaluate_results(submit({token: [] for token in val_tokens}), str(copied_root), VERSION)
    dataset = evaluated(copied_root, infos)
    with pytest.raises(ValueError, match=r'no annotations to score against.*--format-only'):
        NuScenesDevkitMetric(str(copied_root), VERSION, str(infos)).check_dataset(dataset)
    results = str(copied_root / 'results.json')
    NuScenesDevkitMetric(str(copied_root), VERSION, str(infos), results_path=results, format_only=True).check_dataset(
        dataset
    )


def test_true_boxes_beyond_the_class_ranges_are_no_truth(copied_root, change_table, val_tokens, submit):
    change_table('sample_annotation', lambda rows: [{**row, 'translation': [1e4, 0.0, 0.0]} for row in rows])
    with pytest.raises(ValueError, match=r"no true box of the 12 samples counts by true_boxes='points' within"):
        evaluate_results(submit({token: [] for token in val_tokens}), str(copied_root), VERSION)


@pytest.mark.parametrize(
    ('table', 'change', 'message'),
    [
        ('sample_annotation', {'translation': [math.nan, 0.0, 0.0]}, 'translation of .* is not finite'),
        ('sample_annotation', {'num_lidar_pts': 2.5}, 'is no number of points'),
        ('ego_pose', {'translation': [math.nan, 0.0, 0.0]}, r'translation in ego_pose\.json is not finite'),
        ('attribute', {'name': 'vehicle.flying'}, "has attribute 'vehicle.flying'"),
        ('visibility', {'level': 'good'}, "has level 'good'"),
    ],
)
def test_broken_tables_are_not_scored(copied_root, change_table, val_tokens, submit, table, change, message):
    change_table(table, lambda rows: [{**row, **change} for row in rows])
    with pytest.raises(ValueError, match=message):
        evaluate_results(submit({token: [] for token in val_tokens}), str(copied_root), VERSION)


def test_versions_of_dataset_and_evaluator(copied_root, info_files):
    shutil.copytree(copied_root / VERSION, copied_root / 'city')
    dataset = evaluated(copied_root, info_files['mini_val'])
    metric = NuScenesDevkitMetric(str(copied_root), 'city', str(info_files['mini_val']))
    with pytest.raises(ValueError, match=r'infos are of nuScenes v1\.0-mini, not city'):
        metric.check_dataset(dataset)


def test_infos_of_other_samples_than_the_results_are_named(synthetic_root, info_files, val_tokens, submit):
    path, train = submit({token: [] for token in val_tokens}), str(info_files['mini_train'])
    for split in (None, 'mini_val', 'mini_train'):
        with pytest.raises(ValueError, match='hold other samples: none of the 12 of the results is among the 12 of'):
            evaluate_results(path, str(synthetic_root), VERSION, split, infos=train)
    tokens = [entry['token'] for entry in load_infos(train)['data_list']]
    path = submit({token: [] for token in tokens})
    with pytest.raises(ValueError, match=r'of split mini_train, not mini_val: .*evaluate\.py --split mini_train'):
        evaluate_results(path, str(synthetic_root), VERSION, infos=train)
    assert evaluate_results(path, str(synthetic_root), VERSION, 'mini_train', infos=train)['num_samples'] == 12


def test_the_command(synthetic_root, val_tokens, submit, tmp_path):
    path = submit({token: [] for token in val_tokens})
    done = run_tool('evaluate', path, '--root', synthetic_root, '--version', VERSION, '--true-boxes', 'all')
    assert done.returncode == 0, done.output
    assert 'NDS 0.0000   mAP 0.0000' in done.output and "true boxes count by 'all'" in done.output
    assert json.loads((tmp_path / 'metrics_summary.json').read_text())['true_boxes'] == 'all'
