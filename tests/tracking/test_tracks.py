"""Tracks of hand-made scenes, of true boxes in the synthetic world, and what the devkit scores them with."""

import json
import shutil
import sys

import numpy as np
import pytest
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.tracking.evaluate import TrackingEval

from bevformer_plugin.datasets.infos import load_infos
from bevformer_plugin.errors import InputError
from bevformer_plugin.evaluation import TRACKING_SUMMARY, evaluate_tracks, load_tracks, tracking_table, write_results
from bevformer_plugin.nuscenes_format import TRACKED_CLASSES
from bevformer_plugin.tracking import GATES, track_results, track_scene
from tests.helpers.annotations import annotations_as_results
from tests.helpers.processes import run_tool

SECONDS = 0.5


def detection(x, y, velocity=(0.0, 0.0), name='car', score=0.9):
    return {
        'translation': [x, y, 0.0],
        'velocity': list(velocity),
        'detection_name': name,
        'detection_score': score,
    }


def track(frames):
    return track_scene([SECONDS * index for index in range(len(frames))], frames)


def test_the_tracked_classes_are_the_devkits():
    assert sorted(config_factory('tracking_nips_2019').tracking_names) == sorted(TRACKED_CLASSES) == sorted(GATES)


def test_crossing_cars_keep_their_ids():
    """Two cars meet at the origin at 1 s; without velocities each would go on as the other."""
    times = SECONDS * np.arange(5)
    east = [detection(8 * (t - 1), 0.5, (8, 0), score=0.9) for t in times]
    north = [detection(0.5, 8 * (t - 1), (0, 8), score=0.5) for t in times]
    in_turns = [[a, b] if index % 2 else [b, a] for index, (a, b) in enumerate(zip(east, north, strict=True))]
    assert track(in_turns) == [[2, 1], [1, 2], [2, 1], [1, 2], [2, 1]]


def test_the_box_with_the_higher_score_chooses_first():
    frames = [[detection(0, 0)], [detection(1, 0, score=0.4), detection(2, 0, score=0.6)]]
    assert track(frames) == [[1], [2, 1]]


def test_the_gate_depends_on_the_class():
    for name, gate in GATES.items():
        for step, same in ((gate - 0.01, True), (gate + 0.01, False)):
            first, second = track([[detection(0, 0, name=name)], [detection(step, 0, name=name, score=0.5)]])
            assert (first == second) is same, (name, step)


def test_a_track_has_one_class_and_untracked_classes_have_none():
    frames = [[detection(0, 0), detection(9, 0, name='barrier')], [detection(0, 0, name='truck', score=0.2)]]
    assert track(frames) == [[1, None], [2]]


def test_a_track_outlives_two_missed_frames_and_goes_on_with_its_velocity():
    """At 20 m/s the car is 30 m farther after two missed frames, far beyond its gate of 4 m."""
    for missed, expected in ((2, [1]), (3, [2])):
        seen_again = detection(20 * SECONDS * (missed + 1), 0, (20, 0), score=0.5)
        assert track([[detection(0, 0, (20, 0))], *[[]] * missed, [seen_again]])[-1] == expected


def test_an_unknown_velocity_counts_as_none():
    assert track([[detection(0, 0)], [detection(3, 0, (np.nan, np.nan), score=0.5)]]) == [[1], [1]]


@pytest.fixture(scope='module')
def true_results(tables, info_files, tmp_path_factory):
    """The annotations with points as a submission of detections, in which every object has one score."""
    tokens = [entry['token'] for entry in load_infos(info_files['mini_val'])['data_list']]
    results = annotations_as_results(tables, tokens)
    for entries in results.values():
        for entry in entries:
            entry['detection_score'] = 0.5
    path = tmp_path_factory.mktemp('true') / 'results_nusc.json'
    path.write_text(json.dumps({'meta': {'use_lidar': True}, 'results': results}))
    return path


@pytest.fixture(scope='module')
def true_tracks(true_results, info_files):
    """Tracks that tools/track.py makes of true boxes, in one process."""
    path = true_results.with_name('tracking.json')
    made = run_tool('track', true_results, '--infos', info_files['mini_val'], '--out', path, '--workers', 1)
    assert made.returncode == 0, made.output
    return path


@pytest.fixture(scope='module')
def summary(true_tracks, synthetic_root):
    """Scores of tools/evaluate.py on them."""
    ended = run_tool('evaluate', true_tracks, '--task', 'tracking', '--root', synthetic_root, '--version', 'v1.0-mini')
    assert ended.returncode == 0, ended.output
    return json.loads(true_tracks.with_name(TRACKING_SUMMARY).read_text())


def test_four_processes_make_the_file_of_one(true_results, true_tracks, info_files, tmp_path):
    path = tmp_path / 'tracking.json'
    made = run_tool('track', true_results, '--infos', info_files['mini_val'], '--out', path, '--workers', 4)
    assert made.returncode == 0, made.output
    assert path.read_bytes() == true_tracks.read_bytes()


def test_the_file_has_nuscenes_format(true_tracks, true_results, tables):
    results = load_tracks(true_tracks)
    assert json.loads(true_tracks.read_text())['meta'] == {'use_lidar': True}
    detections = json.loads(true_results.read_text())['results']
    assert set(results) == set(detections)
    scenes = {}
    for token, boxes in results.items():
        assert len(boxes) == sum(entry['detection_name'] in TRACKED_CLASSES for entry in detections[token])
        for box in boxes:
            scenes.setdefault(box['tracking_id'], set()).add(tables.get('sample', token)['scene_token'])
    assert len(scenes) > 10 and all(len(of_id) == 1 for of_id in scenes.values())


def test_true_boxes_with_true_velocities_are_tracked(summary):
    assert summary['amota'] >= 0.95
    assert summary['amotp'] < 0.05 and summary['num_samples'] == summary['num_split_samples'] == 12
    table = tracking_table(summary)
    assert f'{summary["amota"]:.3f}' in table.splitlines()[-1]


def test_all_true_boxes_give_perfect_tracks(tables, info_files, synthetic_root, tmp_path):
    """Those with points have gaps where objects are hidden; all of them have none."""
    tokens = [entry['token'] for entry in load_infos(info_files['mini_val'])['data_list']]
    results = annotations_as_results(tables, tokens, lambda _: True)
    path = tmp_path / 'results_nusc.json'
    path.write_text(json.dumps({'meta': {}, 'results': results}))
    tracks = tmp_path / 'tracking.json'
    write_results(track_results(path, info_files['mini_val']).results, tracks)
    summary = evaluate_tracks(str(tracks), str(synthetic_root), 'v1.0-mini', true_boxes='all')
    assert summary['ids'] == summary['fp'] == summary['fn'] == 0
    assert summary['amota'] == pytest.approx(1) and summary['amotp'] == pytest.approx(0, abs=1e-6)


def test_scores_are_the_devkits(summary, true_tracks, synthetic_root, tmp_path):
    official = TrackingEval(
        config_factory('tracking_nips_2019'),
        str(true_tracks),
        'mini_val',
        str(tmp_path),
        'v1.0-mini',
        str(synthetic_root),
        verbose=False,
    ).main(render_curves=False)
    expected = json.loads(json.dumps(official['label_metrics']))
    np.testing.assert_equal(summary['label_metrics'], expected)


def changed(path, folder, change):
    content = json.loads(path.read_text())
    change(content['results'])
    target = folder / 'changed.json'
    target.write_text(json.dumps(content))
    return target


def test_ids_that_change_half_way_cost(true_tracks, synthetic_root, info_files, summary, tmp_path):
    """A switch of all ids between the third and the fourth frame is counted once for each object that goes on."""
    late = {entry['token'] for entry in load_infos(info_files['mini_val'])['data_list'] if entry['frame_idx'] >= 3}

    def switch(results):
        for token in late:
            for box in results[token]:
                box['tracking_id'] += 'b'

    path = changed(true_tracks, tmp_path, switch)
    assert evaluate_tracks(str(path), str(synthetic_root), 'v1.0-mini')['ids'] > 10 + summary['ids']


def test_own_splits_are_scored(true_tracks, info_files, synthetic_root, tmp_path):
    """The infos of one scene, of a split that the devkit does not know, are scored as that scene alone."""
    infos = load_infos(info_files['mini_val'])
    name = infos['data_list'][0]['scene_name']
    tokens = [entry['token'] for entry in infos['data_list'] if entry['scene_name'] == name]
    root = tmp_path / 'root'
    root.mkdir()
    shutil.copytree(synthetic_root / 'v1.0-mini', root / 'v1.0-mini')
    (root / 'maps').symlink_to(synthetic_root / 'maps')
    (root / 'v1.0-mini' / 'splits.json').write_text(json.dumps({'own_val': [name]}))

    def keep(results):
        for token in set(results) - set(tokens):
            del results[token]

    path = changed(true_tracks, tmp_path, keep)
    summary = evaluate_tracks(str(path), str(root), 'v1.0-mini', split='own_val')
    assert summary['num_samples'] == len(tokens) and summary['amota'] >= 0.95


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda box: box.update(tracking_id=7), 'tracking_id 7; an id is a text'),
        (lambda box: box.pop('tracking_score'), 'lacks tracking_score'),
        (lambda box: box.update(tracking_name='barrier'), "of class 'barrier'; the classes are bicycle"),
        (lambda box: box.update(tracking_score=1.5), 'tracking_score of box 0 is not in'),
    ],
)
def test_broken_tracks_are_refused(true_tracks, tmp_path, change, message):
    path = changed(true_tracks, tmp_path, lambda results: change(next(iter(results.values()))[0]))
    with pytest.raises(InputError, match=message):
        load_tracks(path)


def test_ids_that_repeat_are_refused(true_tracks, synthetic_root, tmp_path):
    def same(results):
        for boxes in results.values():
            boxes[0]['tracking_id'] = 'one'

    with pytest.raises(InputError, match="tracking_id 'one' is in two scenes"):
        evaluate_tracks(str(changed(true_tracks, tmp_path, same)), str(synthetic_root), 'v1.0-mini')

    def twice(results):
        boxes = next(iter(results.values()))
        boxes[1]['tracking_id'] = boxes[0]['tracking_id']

    with pytest.raises(InputError, match='as a box before it'):
        load_tracks(changed(true_tracks, tmp_path, twice))


def test_detections_are_no_tracks_and_tracks_no_detections(true_tracks, true_results, synthetic_root, info_files):
    where = ('--root', synthetic_root, '--version', 'v1.0-mini', '--overwrite')
    refused = run_tool('evaluate', true_results, '--task', 'tracking', *where)
    assert refused.returncode == 1 and 'is of detections, not of tracks' in refused.last_line
    with pytest.raises(InputError, match='is of tracks, not of detections'):
        track_results(true_tracks, info_files['mini_val'])


def test_results_of_other_samples_are_refused(true_results, info_files, tmp_path):
    with pytest.raises(InputError, match='give the infos on which the results were made'):
        track_results(true_results, info_files['mini_train'])
    with pytest.raises(InputError, match='workers must be at least 1, got 0'):
        track_results(true_results, info_files['mini_val'], workers=0)


def without_motmetrics():
    sys.modules['motmetrics'] = None  # as Python notes a module that cannot be imported


def test_motmetrics_is_asked_for(true_tracks, synthetic_root):
    where = ('--root', synthetic_root, '--version', 'v1.0-mini', '--overwrite')
    refused = run_tool('evaluate', true_tracks, '--task', 'tracking', *where, plant=without_motmetrics)
    assert refused.returncode == 1
    assert refused.last_line.startswith('error: scoring tracks needs motmetrics')
    assert 'pip install motmetrics' in refused.last_line
