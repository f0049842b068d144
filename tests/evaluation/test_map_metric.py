"""IoU of maps: counts by hand, an oracle in every protocol, and counts that add."""

import json

import numpy as np
import pytest
import torch
from mmdet3d.structures import Det3DDataSample
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData

from bevformer_plugin.evaluation import MapCounts, MapMetric, drop_maps, missing_maps, read_map, read_map_protocol
from bevformer_plugin.geometry import BEVGrid
from bevformer_plugin.maps import IGNORED, PROTOCOLS, MapClass, MapProtocol, find_protocol

# Two rows of three cells, of 30 m each: the middles lie 15 m or 33.5 m from the origin.
SMALL = MapProtocol(
    'small', BEVGrid(2, 3, (-45.0, -30.0, -1.0, 45.0, 30.0, 1.0)), 'lidar', (MapClass('one'), MapClass('two'))
)


def counts_of(probabilities, labels, protocol=SMALL):
    return MapCounts.of_sample(protocol, np.array(probabilities, np.float32), np.array(labels, np.uint8))


def test_two_frames_by_hand():
    first = counts_of(
        [[[0.9, 0.5, 0.2], [0.7, 0.6, 0.0]], [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]],
        [[[1, 1, 0], [0, 1, 1]], [[0, 0, 0], [0, 0, 0]]],
    )
    second = counts_of(
        [[[0.1, 0.8, 0.8], [0.4, 0.4, 0.4]], [[0.0, 0.0, 0.3], [1.0, 0.9, 0.8]]],
        [[[0, 1, IGNORED], [1, 0, 0]], [[0, 0, 0], [1, 1, 0]]],
    )
    total = MapCounts.total(SMALL, [first, second])
    at = {threshold: SMALL.thresholds.index(threshold) for threshold in (0.35, 0.5, 0.85)}
    # Class one at 0.5. First frame: 0.9 and 0.6 hit, 0.5 is not above 0.5, 0.7 is wrong, the last cell is missed.
    # Second frame: 0.8 hits, the other 0.8 is ignored, one cell is missed.
    assert total.intersections.sum(axis=2)[0, at[0.5]] == 2 + 1
    assert total.unions.sum(axis=2)[0, at[0.5]] == 5 + 2
    # At 0.35: 0.5 hits as well; in the second frame 0.4 hits once and is wrong twice.
    assert total.intersections.sum(axis=2)[0, at[0.35]] == 3 + 2
    assert total.unions.sum(axis=2)[0, at[0.35]] == 5 + 4
    # Class two is absent from the first frame; at 0.85 its two cells are found and nothing else.
    assert total.intersections.sum(axis=2)[1, at[0.85]] == total.unions.sum(axis=2)[1, at[0.85]] == 2
    # The middle column lies 15 m away, the others 33.5 m; none lies beyond 40 m.
    np.testing.assert_array_equal(total.intersections[0, at[0.5]], [1 + 1, 1, 0])
    np.testing.assert_array_equal(total.unions[0, at[0.5]], [2 + 1, 3 + 1, 0])
    values = total.values()
    assert values['one@0.5'] == pytest.approx(3 / 7)
    assert values['two@0.5'] == pytest.approx(2 / 3)
    assert values['mIoU@0.5'] == pytest.approx((3 / 7 + 2 / 3) / 2)
    assert (values['two@best'], values['two@best/threshold']) == (1.0, 0.8)  # the first of equally good ones
    assert values['one@0.5/0-20m'] == pytest.approx(2 / 3) and np.isnan(values['one@0.5/40m+'])
    assert total.samples == 2


def test_a_mean_is_over_the_classes_that_are_there():
    counts = counts_of(np.zeros((2, 2, 3)), [[[1, 0, 0], [0, 0, 0]], np.zeros((2, 3))])
    assert counts.values()['mIoU@0.5'] == 0 and np.isnan(counts.values()['two@0.5'])
    assert '-' in counts.table().splitlines()[3]


def random_labels(protocol, rng):
    labels = rng.integers(0, 2, (len(protocol.classes), 200, 200)).astype(np.uint8)
    if protocol.least_visibility > 1:
        labels[:, :20] = IGNORED
    return labels


@pytest.mark.parametrize('name', PROTOCOLS)
def test_an_oracle_scores_1_in_every_protocol(name):
    protocol, rng = find_protocol(name), np.random.default_rng(0)
    parts = [random_labels(protocol, rng) for _ in range(2)]
    counts = MapCounts.total(protocol, [counts_of(labels == 1, labels, protocol) for labels in parts])
    values = counts.values()
    scores = {key: value for key, value in values.items() if not key.endswith('/threshold')}
    assert set(scores.values()) == {1.0}
    assert f'mIoU@{protocol.threshold or 0.5:g}' in values
    expected = sum(int((labels == 1).sum()) for labels in parts)
    assert counts.intersections[:, 0].sum() == counts.unions[:, 0].sum() == expected


def test_counts_do_not_depend_on_how_samples_are_grouped():
    protocol, rng = find_protocol('paper'), np.random.default_rng(1)
    parts = [
        counts_of(rng.uniform(0, 1, labels.shape), labels, protocol)
        for labels in (random_labels(protocol, rng) for _ in range(3))
    ]
    whole = MapCounts.total(protocol, parts)
    grouped = MapCounts.total(protocol, [MapCounts.total(protocol, parts[1:]), parts[0]])
    np.testing.assert_array_equal(whole.intersections, grouped.intersections)
    np.testing.assert_array_equal(whole.unions, grouped.unions)
    assert whole.intersections.dtype == np.int64 and whole.values() == grouped.values()


def test_which_thresholds_a_protocol_may_choose():
    """BEVFusion takes the best of 0.35 to 0.65, the others are shown the best of all."""
    labels = np.zeros((6, 200, 200), np.uint8)
    labels[:, :100] = 1
    probabilities = np.where(labels == 1, 0.9, 0.8).astype(np.float32)
    best, chosen = counts_of(probabilities, labels, find_protocol('bevfusion')).best()
    assert (best == 0.5).all() and (chosen == 0.35).all()
    best, chosen = counts_of(probabilities[:4], labels[:4], find_protocol('paper')).best()
    assert (best == 1).all() and (chosen == 0.8).all()


@pytest.mark.parametrize(
    ('probabilities', 'labels', 'message'),
    [
        (np.zeros((2, 3, 2)), np.zeros((2, 2, 3)), r"by protocol 'small' has shape \(2, 2, 3\), got \(2, 3, 2\)"),
        (np.full((2, 2, 3), np.nan), np.zeros((2, 2, 3)), 'no probabilities'),
        (np.full((2, 2, 3), 1.5), np.zeros((2, 2, 3)), 'no probabilities'),
    ],
)
def test_what_is_no_map_is_refused(probabilities, labels, message):
    with pytest.raises(ValueError, match=message):
        counts_of(probabilities, labels)


def sample_of(token, probabilities, labels):
    sample = Det3DDataSample(metainfo={'sample_idx': token})
    sample.pred_map = PixelData(data=torch.from_numpy(probabilities))
    sample.gt_map = PixelData(data=torch.from_numpy(labels))
    return sample


def test_the_evaluator_writes_what_pictures_read(tmp_path):
    protocol, rng = find_protocol('paper'), np.random.default_rng(2)
    labels = {token: random_labels(protocol, rng) for token in ('a', 'b')}
    maps = {token: rng.uniform(0, 1, (4, 200, 200)).astype(np.float32) for token in labels}
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        evaluator = Evaluator(dict(type='MapMetric', protocol='paper', out_dir=str(tmp_path)))
    evaluator.process([sample_of(token, maps[token], labels[token]) for token in labels])
    scores = evaluator.evaluate(2)
    expected = MapCounts.total(protocol, [counts_of(maps[token], labels[token], protocol) for token in labels])
    assert scores == {f'map/paper/{key}': value for key, value in expected.values().items()}
    summary = json.loads((tmp_path / 'map_summary.json').read_text())
    assert summary['protocol'] == 'paper' and summary['samples'] == 2
    np.testing.assert_array_equal(summary['unions'], expected.unions)
    assert read_map_protocol(tmp_path) == protocol
    for token, probabilities in maps.items():
        np.testing.assert_allclose(read_map(tmp_path, protocol, token), probabilities, atol=0.5 / 255 + 1e-6)
    with pytest.raises(FileNotFoundError, match=r'no predicted map .*c\.png'):
        read_map(tmp_path, protocol, 'c')
    with pytest.raises(FileNotFoundError, match=r'no predicted maps in .*--maps-out'):
        read_map_protocol(tmp_path / 'elsewhere')
    (tmp_path / 'results_nusc.json').touch()
    drop_maps(tmp_path)  # as before another test writes its own
    assert missing_maps(tmp_path, maps) == ['a', 'b']
    assert sorted(path.name for path in tmp_path.rglob('*')) == ['probabilities', 'results_nusc.json']


def test_maps_that_nobody_scores_are_written(tmp_path):
    metric = MapMetric('paper', str(tmp_path), format_only=True)
    probabilities = np.full((4, 200, 200), 0.2, np.float32)
    sample = sample_of('a', probabilities, np.zeros((4, 200, 200), np.uint8)).to_dict()
    del sample['gt_map']
    metric.process({}, [{**sample, 'sample_idx': 'a'}])
    assert metric.evaluate(1) == {} and [path.name for path in tmp_path.iterdir()] == ['probabilities']
    np.testing.assert_allclose(read_map(tmp_path, metric.protocol, 'a'), probabilities, atol=1e-6)
    with pytest.raises(ValueError, match='format_only needs out_dir'):
        MapMetric('paper', format_only=True)


def test_samples_without_maps_are_refused():
    metric = MapMetric('paper')
    sample = sample_of('a', np.zeros((4, 200, 200), np.float32), np.zeros((4, 200, 200), np.uint8)).to_dict()
    for key, message in (('gt_map', "sample a has no gt_map .*'LoadMapLabels'"), ('pred_map', 'pred_map .*MapHead')):
        with pytest.raises(ValueError, match=message):
            metric.process({}, [{name: value for name, value in {**sample, 'sample_idx': 'a'}.items() if name != key}])
