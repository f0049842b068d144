"""Boxes of tracks in pictures: colours and ids."""

import json

import cv2
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from bevformer_plugin.errors import InputError
from bevformer_plugin.evaluation import write_results
from bevformer_plugin.tracking import track_results
from bevformer_plugin.visualization import (
    FrameSource,
    draw_best_and_worst,
    draw_frame,
    draw_scene,
    track_color,
    track_label,
)


@pytest.fixture(scope='module')
def tracking(perfect_results, info_files, tmp_path_factory):
    path = tmp_path_factory.mktemp('tracks') / 'tracking.json'
    write_results(track_results(perfect_results, info_files['mini_val']).results, path)
    return path


@pytest.fixture(scope='module')
def tracked(tracking, synthetic_root, info_files):
    return FrameSource(synthetic_root, info_files['mini_val'], tracks=tracking)


def test_boxes_keep_the_ids_of_their_tracks(tracked, tracking):
    token = next(iter(tracked.infos))
    entries = json.loads(tracking.read_text())['results'][token]
    boxes = tracked.frame(token).predictions
    assert sorted(boxes.ids) == sorted(entry['tracking_id'] for entry in entries) and len(set(boxes.ids)) > 3
    names = {entry['tracking_id']: entry['tracking_name'] for entry in entries}
    assert [names[name] for name in boxes.ids] == list(boxes.names)
    chosen = boxes.select(np.arange(len(boxes)) % 2 == 1)
    assert chosen.ids == boxes.ids[1::2]
    assert chosen.labels == [name.split('/')[1] for name in chosen.ids]
    assert chosen.colors == [track_color(name) for name in chosen.ids]


def test_colours_and_labels_of_tracks():
    assert track_label('scene-0103/12') == '12' and track_label('57') == '57'
    colors = {track_color(f'scene-0103/{number}') for number in range(1, 41)}
    assert len(colors) > 35
    assert all(max(to_rgb(color)) == 1 for color in colors)  # bright, for a dark page
    assert track_color('scene-0103/1') == track_color('scene-0103/1')


def test_an_object_has_one_colour_in_all_pictures_of_its_track(tracked):
    """The ids of true boxes that are tracked go on from frame to frame, and with them their colours."""
    scene = next(iter(tracked.infos.values()))['scene_name']
    frames = [dict(zip(b.ids, b.colors, strict=True)) for b in _predictions(tracked, scene)]
    common = set(frames[0]) & set(frames[1])
    assert len(common) > 3 and all(frames[0][name] == frames[1][name] for name in common)


def _predictions(source, scene):
    return [source.frame(token).predictions for token in source.tokens_of_scene(scene)]


def test_pictures_show_the_colours_of_tracks(tracked, source):
    token = next(iter(tracked.infos))
    frame = tracked.frame(token)
    picture, of_classes = draw_frame(frame), draw_frame(source.frame(token))
    assert picture.shape == of_classes.shape
    bev = np.s_[-860:, 530:1390]
    shown = {tuple(pixel) for pixel in picture[bev].reshape(-1, 3).tolist()}
    plain = {tuple(pixel) for pixel in of_classes[bev].reshape(-1, 3).tolist()}
    near = np.abs(frame.predictions.values[:, :2]).max(1) < 45
    colors = {
        tuple(round(255 * c) for c in reversed(to_rgb(color))) for color in frame.predictions.select(near).colors
    }
    assert len(colors & shown) > 0.8 * len(colors) and len(colors & plain) < 0.2 * len(colors)


def test_video_of_tracks(tracked, tmp_path):
    scene = next(iter(tracked.infos.values()))['scene_name']
    paths = draw_scene(tracked, scene, tmp_path)
    assert paths[-1].name == f'{scene}.mp4' and len(paths) == 7
    video = cv2.VideoCapture(str(paths[-1]))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 6


def test_tracks_stand_in_the_place_of_results(
    tracked, tracking, perfect_results, synthetic_root, info_files, tmp_path
):
    with pytest.raises(InputError, match='give either --results or --tracks'):
        FrameSource(synthetic_root, info_files['mini_val'], perfect_results, tracks=tracking)
    with pytest.raises(InputError, match=r'is of detections, not of tracks: tools/track\.py makes tracks'):
        FrameSource(synthetic_root, info_files['mini_val'], tracks=perfect_results)
    with pytest.raises(InputError, match=r'is of tracks, not of detections: .* --tracks draws them'):
        FrameSource(synthetic_root, info_files['mini_val'], tracking)
    with pytest.raises(InputError, match='need results'):
        draw_best_and_worst(tracked, 1, 0, tmp_path)
