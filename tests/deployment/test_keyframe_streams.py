"""StreamPredictor gives what the dataset and detector of a BEVFormerV2 give, on keyframes half a second apart."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from bevformer_plugin.datasets.infos import load_infos
from bevformer_plugin.deployment import StreamPredictor, StreamState
from bevformer_plugin.deployment.frame_predictor import ModelInputs
from bevformer_plugin.errors import InputError
from bevformer_plugin.models import BEVHistory
from tests.deployment.rigs import recorded_frame
from tests.models.v2_world import CROP, batch_of, build, dataset_of, shrunk_config

OFFSETS = [-2, -1, 0]


def predictor_with(offsets):
    """An untrained predictor with frames at these offsets, and its config."""
    cfg = shrunk_config('t2', offsets)
    cfg.val_dataloader.dataset.image_size = (200, 112 - CROP)
    cfg.test_dataloader = cfg.val_dataloader
    return StreamPredictor(build(cfg), ModelInputs.from_config(cfg), optimize=False), cfg


@pytest.fixture(scope='module')
def fusing():
    return predictor_with(OFFSETS)


@pytest.fixture(scope='module')
def drive(synthetic_root, info_files):
    """The frames of one validation scene."""
    infos = load_infos(info_files['mini_val'], root=synthetic_root)['data_list']
    return [recorded_frame(info, synthetic_root) for info in infos if info['scene_token'] == infos[0]['scene_token']]


def step(predictor, frame, state=None):
    return predictor.step(frame.images, frame.rig, frame.pose, frame.timestamp, state)


def test_a_stream_gives_what_the_dataset_gives_where_a_keyframe_is_missing_too(
    fusing, drive, synthetic_root, info_files
):
    predictor, cfg = fusing
    detector, dataset = predictor.detector, dataset_of(cfg, 'val', synthetic_root, info_files['mini_val'])
    state, left_out = None, 2
    for index, frame in enumerate(drive):
        if index == left_out:
            continue
        found, state = step(predictor, frame, state)
        (sample,) = detector.predict(*batch_of(detector, [dataset[index]]))
        expected = sample.pred_instances_3d
        torch.testing.assert_close(found.bboxes_3d.tensor, expected.bboxes_3d.tensor, atol=1e-5, rtol=0)
        np.testing.assert_allclose(found.scores, expected.scores_3d.numpy(), atol=1e-6)
        nearest = [position for position in (index - 1, index) if position not in (-1, left_out)]
        assert [kept.position for kept in state.history.kept] == nearest
    alone, _ = step(predictor, drive[-1])
    assert np.abs(alone.scores - found.scores).max() > 1e-4  # the frames before matter


@pytest.mark.parametrize('seconds', [0.1, 0.39, 0.7, 0.85, 1.3])
def test_frames_that_are_no_keyframes_are_refused(fusing, drive, seconds):
    predictor, _ = fusing
    _, state = step(predictor, drive[0])
    later = replace(drive[1], timestamp=drive[0].timestamp + seconds)
    message = rf'a frame comes {seconds:g} s after .* keyframes 0\.5 s apart: give it those'
    with pytest.raises(InputError, match=message):
        step(predictor, later, state)
    with pytest.raises(InputError, match=message):
        predictor.require_times([3.0, 3.0 + seconds])
    predictor.require_times([3.0, 3.45, 4.5, 12.34])  # one is missing, and then the stream begins anew


def test_after_a_long_gap_a_stream_begins_anew(fusing, drive):
    predictor, _ = fusing
    _, state = step(predictor, drive[0])
    later = replace(drive[1], timestamp=drive[0].timestamp + 7.3)
    found, after = step(predictor, later, state)
    alone, _ = step(predictor, later)
    assert np.array_equal(found.scores, alone.scores) and [kept.position for kept in after.history.kept] == [0]


def test_a_model_of_one_frame_takes_frames_of_any_time(drive):
    predictor, _ = predictor_with([0])
    _, state = step(predictor, drive[0])
    found, after = step(predictor, replace(drive[1], timestamp=drive[0].timestamp + 0.03), state)
    assert np.array_equal(found.scores, step(predictor, drive[1])[0].scores)
    assert after.history.kept == ()
    predictor.require_times([0.0, 0.03])


def test_the_state_of_another_model_is_refused(fusing, drive):
    predictor, _ = fusing
    _, state = step(predictor, drive[0])
    kept = state.history.kept[0]
    narrow = replace(kept, levels=[level[:, :8] for level in kept.levels])
    recurrent = BEVHistory(torch.zeros(144, 32), kept.frame)
    for history, message in (
        (replace(state.history, kept=(narrow,)), r'it holds features of cameras and channels \[\(6, 8\)'),
        (recurrent, 'it holds the BEV of a BEVFormer, this model leaves camera features behind'),
    ):
        with pytest.raises(InputError, match=message):
            step(predictor, drive[1], StreamState(history))
