"""Maps under the boxes of pictures."""

import itertools
import json
import runpy
import sys

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from bevformer_plugin.evaluation.map_metric import write_map
from bevformer_plugin.maps import find_protocol
from bevformer_plugin.visualization import FrameSource, draw_frame
from bevformer_plugin.visualization.bev_view import LIMIT, draw_bev
from bevformer_plugin.visualization.frames import Boxes
from bevformer_plugin.visualization.map_layers import MapLayers
from bevformer_plugin.visualization.palette import GROUND, MAP_COLORS
from tests.helpers.repository import REPO

TOOL = REPO / 'tools/visualize.py'
NO_BOXES = Boxes(np.zeros((0, 9)), (), np.zeros(0))
SAME = np.array([[1.0, 0, 0], [0, 1, 0]])


def view(layers):
    """RGB (400, 400, 3) of the view from above, row 0 ahead."""
    figure = Figure(figsize=(4, 4), dpi=100)
    canvas = FigureCanvasAgg(figure)
    draw_bev(figure.add_axes((0, 0, 1, 1)), NO_BOXES, None, None, layers)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(float)


def pixel(picture, x, y):
    """The colour of a place in the LiDAR frame."""
    return picture[int((LIMIT - y) / (2 * LIMIT) * 400), int((x + LIMIT) / (2 * LIMIT) * 400)]


def channels(protocol):
    return np.zeros((len(protocol.classes), 200, 200))


@pytest.mark.parametrize(('to_lidar', 'place'), [(SAME, (15, 23)), (np.array([[0.0, -1, 4], [1, 0, 0]]), (-19, 15))])
def test_true_areas_are_filled_where_they_lie(to_lidar, place):
    protocol = find_protocol('paper')
    truth = channels(protocol).astype(np.uint8)
    row, column = (int((metres + 51.2) / 0.512) for metres in (23, 15))  # 23 m ahead and 15 m to the right
    truth[2, row - 4 : row + 5, column - 4 : column + 5] = 1
    plain, drawn = view(None), view(MapLayers(protocol, truth, None, to_lidar))
    expected = 255 * (0.4 * np.array(to_rgb(MAP_COLORS['drivable_area'])) + 0.6 * np.array(to_rgb(GROUND)))
    np.testing.assert_allclose(pixel(drawn, *place), expected, atol=4)
    changed = np.abs(drawn - plain).max(axis=2) > 8
    assert 0.0012 < changed.mean() < 0.003  # 4.6 m squared of 108 m squared
    x, y = place
    assert (
        not changed[: int((LIMIT - y - 5) / 108 * 400)].any()
        and not changed[:, : int((x + LIMIT - 5) / 108 * 400)].any()
    )


def test_predictions_are_outlined_at_one_half():
    protocol = find_protocol('paper')
    prediction = channels(protocol)
    prediction[3, 100:150, 120:160] = 0.9
    prediction[0] = 1.0  # cars are drawn as boxes
    empty = channels(protocol).astype(np.uint8)
    plain = view(MapLayers(protocol, empty, None, SAME))
    drawn = view(MapLayers(protocol, empty, prediction, SAME))
    changed = np.abs(drawn - plain).max(axis=2) > 60
    rows, columns = np.nonzero(changed)
    assert 0.003 < changed.mean() < 0.03
    x, y = (columns + 0.5) / 400 * 108 - LIMIT, LIMIT - (rows + 0.5) / 400 * 108
    assert [x.min(), x.max(), y.min(), y.max()] == pytest.approx([10.2, 30.7, 0, 25.6], abs=1)
    assert not changed[(rows.min() + rows.max()) // 2, columns.min() + 6 : columns.max() - 6].any()  # not filled


def test_pictures_of_keyframes_have_their_maps(synthetic_root, info_files, tmp_path):
    protocol = find_protocol('lss')
    plain = FrameSource(synthetic_root, info_files['mini_val'])
    token = next(iter(plain.infos))
    source = FrameSource(synthetic_root, info_files['mini_val'], maps=protocol)
    layers = source.frame(token).layers
    assert layers.protocol is protocol and layers.prediction is None and (layers.truth[2] == 1).mean() > 0.05
    np.testing.assert_allclose(np.abs(layers.to_lidar[:, 2]), [0, 0.94], atol=0.1)
    write_map(tmp_path, protocol, token, layers.truth == 1)
    others = [other for other in plain.infos if other != token]
    with pytest.raises(ValueError, match=f'lacks the predicted maps of 11 of the 12 samples .*first: {others[0]}'):
        FrameSource(synthetic_root, info_files['mini_val'], maps=tmp_path)
    for other in others:
        write_map(tmp_path, protocol, other, np.zeros((4, 200, 200)))
    predicted = FrameSource(synthetic_root, info_files['mini_val'], maps=tmp_path).frame(token)
    np.testing.assert_array_equal(predicted.layers.prediction, layers.truth == 1)
    pictures = [draw_frame(frame) for frame in (plain.frame(token), source.frame(token), predicted)]
    assert len({picture.shape for picture in pictures}) == 1
    differing = [(one != other).any(axis=2).mean() for one, other in itertools.pairwise(pictures)]
    assert min(differing) > 0.001


def test_a_predicted_map_is_filled_where_nobody_knows_the_true_one():
    protocol = find_protocol('paper')
    prediction = channels(protocol)
    prediction[2, 96:105, 126:135] = 0.6
    layers = MapLayers(protocol, None, prediction, SAME)
    drawn = view(layers)
    expected = 255 * (0.4 * np.array(to_rgb(MAP_COLORS['drivable_area'])) + 0.6 * np.array(to_rgb(GROUND)))
    np.testing.assert_allclose(pixel(drawn, 15.6, 1), expected, atol=4)
    assert (np.abs(drawn - view(None)).max(axis=2) > 8).mean() == pytest.approx(
        (9 * 0.512 / (2 * LIMIT)) ** 2, rel=0.2
    )
    assert layers.meaning == 'filled: predicted, above 0.5'
    assert [one.name for one in layers.drawn()] == ['drivable_area', 'lane_boundary']
    alone = MapLayers(protocol, prediction.astype(np.uint8), prediction, SAME, with_boxes=True)
    assert [one.name for one in alone.drawn()] == ['drivable_area', 'lane_boundary', 'vehicles', 'car']
    assert alone.meaning == 'filled: true, outline: predicted, above 0.5'


def test_the_command_draws_maps(synthetic_root, info_files, tmp_path, monkeypatch):
    token = next(iter(FrameSource(synthetic_root, info_files['mini_val']).infos))
    shared = [
        '--root',
        synthetic_root,
        '--infos',
        info_files['mini_val'],
        '--sample',
        token,
        '--out',
        tmp_path / 'out',
    ]
    for more, message in (
        (['--map-protocol', 'paper'], None),
        (['--maps', tmp_path, '--map-protocol', 'paper'], 2),
        (['--maps', tmp_path, '--overwrite'], f'error: no predicted maps in {tmp_path}'),
    ):
        monkeypatch.setattr(sys, 'argv', ['visualize', *map(str, [*shared, *more])])
        if message is None:
            runpy.run_path(str(TOOL), run_name='__main__')
            assert len(list((tmp_path / 'out').glob('*.png'))) == 1
            continue
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(TOOL), run_name='__main__')
        assert stopped.value.code == message or str(stopped.value.code).startswith(str(message))


def test_a_folder_of_other_classes_is_refused(synthetic_root, info_files, tmp_path):
    write_map(tmp_path, find_protocol('cvt'), 'a', np.zeros((2, 200, 200)))
    description = tmp_path / 'probabilities' / 'protocol.json'
    description.write_text(json.dumps({'protocol': 'cvt', 'classes': ['tram']}))
    with pytest.raises(ValueError, match=r"has the classes \['tram'\], protocol 'cvt'"):
        FrameSource(synthetic_root, info_files['mini_val'], maps=tmp_path)
