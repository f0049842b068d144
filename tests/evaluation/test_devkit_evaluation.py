"""Scores: real submissions, ground truth as predictions, partial coverage, mismatches, several processes."""

import json
from pathlib import Path

import pytest
import torch
from mmdet3d.structures import LiDARInstance3DBoxes
from mmengine.structures import InstanceData

from bevformer_plugin.evaluation import (
    NuScenesDevkitMetric,
    box_convention_warning,
    detections_to_results,
    evaluate_results,
    load_results,
    write_results,
)
from tests.helpers.annotations import has_points
from tests.helpers.info_files import write_infos
from tests.helpers.processes import run_tool
from tests.helpers.reference_files import CLASSES


def truth_as_detections(infos: dict, change=lambda boxes: boxes) -> dict[str, tuple[InstanceData, dict]]:
    """Every sample's true boxes with points as detections, with the meta that places them."""
    names = {index: name for name, index in infos['metainfo']['categories'].items()}
    detections = {}
    for entry in infos['data_list']:
        seen = [i for i in entry['instances'] if has_points(i)]
        boxes = torch.tensor([[*i['bbox_3d'], *i['velocity']] for i in seen]).nan_to_num().view(-1, 9)
        instances = InstanceData(
            bboxes_3d=LiDARInstance3DBoxes(change(boxes), box_dim=9, origin=(0.5, 0.5, 0.5)),
            scores_3d=torch.ones(len(seen)),
            labels_3d=torch.tensor([CLASSES.index(names[i['bbox_label_3d']]) for i in seen]),
        )
        detections[entry['token']] = (
            instances,
            dict(
                sample_idx=entry['token'], lidar2ego=entry['lidar_points']['lidar2ego'], ego2global=entry['ego2global']
            ),
        )
    return detections


def submission(infos: dict, path: Path, change=lambda boxes: boxes) -> Path:
    """Write true boxes as a submission, with the true attributes."""
    attributes = {
        entry['token']: [i['attribute'] for i in entry['instances'] if has_points(i)] for entry in infos['data_list']
    }
    results = {}
    for token, (instances, meta) in truth_as_detections(infos, change).items():
        results[token] = []
        for index in range(len(instances)):
            for entry in detections_to_results(instances[index : index + 1], meta, list(CLASSES)):
                results[token].append({**entry, 'attribute_name': attributes[token][index]})
    write_results(results, path)
    return path


@pytest.fixture
def val_infos(read_infos):
    return read_infos('mini_val')


def test_ground_truth_scores_one(synthetic_root, val_infos, tmp_path):
    path = submission(val_infos, tmp_path / 'results.json')
    summary = evaluate_results(str(path), str(synthetic_root), 'v1.0-mini')
    present = [summary['mean_dist_aps'][name] for name in summary['classes_present']]
    assert present == pytest.approx([1.0] * len(present), abs=1e-9)
    assert json.loads((tmp_path / 'metrics_summary.json').read_text())['nd_score'] == summary['nd_score']
    for name in summary['classes_present']:
        errors = summary['label_tp_errors'][name]
        assert all(value < 2e-3 for value in errors.values() if value == value), (name, errors)


def test_part_of_a_split_is_scored_through_its_infos(synthetic_root, val_infos, tmp_path):
    some = {**val_infos, 'data_list': val_infos['data_list'][:4]}
    write_infos(tmp_path / 'some.pkl', some)
    path = submission(some, tmp_path / 'results.json')
    with pytest.raises(ValueError, match='8 of 12 samples are missing'):
        evaluate_results(str(path), str(synthetic_root), 'v1.0-mini')
    summary = evaluate_results(str(path), str(synthetic_root), 'v1.0-mini', infos=str(tmp_path / 'some.pkl'))
    assert (summary['num_samples'], summary['num_split_samples']) == (4, 12)
    assert all(summary['mean_dist_aps'][name] == pytest.approx(1) for name in summary['classes_present'])
    path = submission(val_infos, tmp_path / 'all.json')
    with pytest.raises(ValueError, match='8 samples do not belong'):
        evaluate_results(str(path), str(synthetic_root), 'v1.0-mini', infos=str(tmp_path / 'some.pkl'))


def test_mixed_box_conventions_are_warned_of(synthetic_root, val_infos, tmp_path):
    def old_convention(boxes):
        boxes = boxes[:, [0, 1, 2, 4, 3, 5, 6, 7, 8]]
        boxes[:, 6] = -boxes[:, 6] - torch.pi / 2
        return boxes

    right = evaluate_results(str(submission(val_infos, tmp_path / 'right.json')), str(synthetic_root), 'v1.0-mini')
    assert box_convention_warning(right) is None
    found = {**right, 'mean_ap': 0.3, 'tp_errors': {**right['tp_errors'], 'scale_err': 0.7, 'orient_err': 1.4}}
    assert 'before 1.0' in box_convention_warning(found)
    wrong = evaluate_results(
        str(submission(val_infos, tmp_path / 'wrong.json', old_convention)), str(synthetic_root), 'v1.0-mini'
    )
    assert wrong['label_tp_errors']['car']['scale_err'] > 0.6


@pytest.mark.parametrize(
    ('version', 'split', 'error'),
    [
        ('v1.0-trainval', None, r'holds no v1\.0-trainval: give one that it holds: v1\.0-mini'),
        ('v1.0-mini', 'valley', "unknown split 'valley'"),
        ('v1.0-mini', 'test', "unknown split 'test'; v1.0-mini has mini_train, mini_val"),
    ],
)
def test_wrong_versions_and_splits_are_named(synthetic_root, val_infos, tmp_path, version, split, error):
    path = submission(val_infos, tmp_path / 'results.json')
    with pytest.raises((ValueError, FileNotFoundError), match=error):
        evaluate_results(str(path), str(synthetic_root), version, split)


def test_the_metric_writes_and_scores_what_it_is_given(synthetic_root, info_files, val_infos, tmp_path):
    metric = NuScenesDevkitMetric(
        str(synthetic_root), 'v1.0-mini', str(info_files['mini_val']), results_path=str(tmp_path / 'results.json')
    )
    metric.dataset_meta = {'classes': CLASSES}
    for instances, meta in truth_as_detections(val_infos).values():
        metric.process({}, [{'pred_instances_3d': instances, **meta}])
    scores = metric.evaluate(len(val_infos['data_list']))
    assert scores['nuscenes/mATE'] < 0.2 and scores['nuscenes/NDS'] > 0.8
    assert set(load_results(tmp_path / 'results.json')) == {entry['token'] for entry in val_infos['data_list']}


@pytest.mark.parametrize(
    ('name', 'published'),
    [
        ('TRELPy', 'TRELPy_mini_val_metrics_summary.published.json'),
        ('CC3DT', 'CC3DT_mini_val_metrics_summary.devkit-1.2.0.json'),
    ],
)
def test_real_submissions_score_their_published_metrics(shared_dir, tmp_path, name, published):
    root = shared_dir / 'real' / 'nuscenes'
    if not root.is_dir():
        pytest.skip(f'{root} with real nuScenes tables is not on this machine')
    results = root / 'results' / f'{name}_mini_val_results_nusc.json'
    done = run_tool('evaluate', results, '--root', root, '--version', 'v1.0-mini', '--out', tmp_path)
    assert done.returncode == 0, done.output
    ours = json.loads((tmp_path / 'metrics_summary.json').read_text())
    theirs = json.loads((root / 'results' / published).read_text())
    assert ours['mean_ap'] == pytest.approx(theirs['mean_ap'], abs=1e-6)
    assert ours['nd_score'] == pytest.approx(theirs['nd_score'], abs=1e-6)
    assert f'NDS {theirs["nd_score"]:.4f}' in done.output
    for key in ('tp_errors', 'mean_dist_aps'):
        assert ours[key] == pytest.approx(theirs[key], abs=1e-6)
    for name, errors in theirs['label_tp_errors'].items():
        assert ours['label_tp_errors'][name] == pytest.approx(errors, abs=1e-6, nan_ok=True)
