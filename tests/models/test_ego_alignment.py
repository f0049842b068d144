"""How ego motion enters the model."""

import math

import pytest
import torch

from bevformer_plugin.geometry import BEVGrid
from bevformer_plugin.models import BEVHistory, EgoAlignment, Frame
from tests.helpers.landmarks import planar_pose

GRID = BEVGrid(10, 10, (-50.0, -50.0, -5.0, 50.0, 50.0, 3.0))
RECORDED = [0.5, 0.25, 0.125, 0.75, *range(1, 10)]  # a quaternion, and three channels of a CAN-bus message


def frame_at(x: float = 0.0, degrees: float = 90.0, **meta) -> Frame:
    """A frame of a vehicle at (x, 0)."""
    pose = planar_pose(x, 0, degrees)
    return Frame.from_meta(
        {
            'lidar2img': torch.eye(4)[None],
            'ego2global': pose,
            'timestamp': 0,
            'scene_token': 'a',
            'can_bus': RECORDED,
            **meta,
        },
        num_cameras=1,
    )


def history_at(*arguments: float) -> BEVHistory:
    return BEVHistory(torch.zeros(100, 4), frame_at(*arguments))


def vector(alignment: EgoAlignment, frame: Frame, history: BEVHistory | None) -> list[float]:
    """What the network is told."""
    return alignment.motion_vector([frame], alignment.motion([frame], [history]))[0].tolist()


def test_default_wraps_and_keeps_the_quaternion():
    told = vector(EgoAlignment(), frame_at(3, 1), history_at(1, 359))
    assert told == pytest.approx([2, 0, 0, *RECORDED, math.radians(1), 2])


def test_preset_has_the_published_quirks():
    preset = EgoAlignment.from_config(dict(preset='official_v1'))
    told = vector(preset, frame_at(0, 1), history_at(0, 359))
    assert told == pytest.approx([0, 0, 0, *[0.5] * 4, *RECORDED[4:], math.radians(1), -358])
    assert (preset.rotate_center, preset.rotate_interpolation) == ((100.0, 100.0), 'nearest')


def test_fields_win_over_the_preset():
    mixed = EgoAlignment.from_config(dict(preset='official_v1', wrap_heading=True))
    assert mixed.wrap_heading
    assert mixed.quaternion_repeats_w


def test_without_history_nothing_moved():
    told = vector(EgoAlignment(), frame_at(3), None)
    assert told == pytest.approx([0, 0, 0, *RECORDED, math.pi / 2, 0])


def test_without_can_bus_the_pose_says_all_that_is_known():
    frame = frame_at(0, 200)
    unrecorded = Frame.from_meta(
        {'lidar2img': frame.lidar2img, 'ego2global': frame.ego2global, 'timestamp': 0, 'scene_token': 'a'}, 1
    )
    quaternion = [math.cos(math.radians(-80)), 0, 0, math.sin(math.radians(-80))]  # half of 200 - 360: w is positive
    assert unrecorded.can_bus.tolist() == pytest.approx([*quaternion, *[0] * 9])


def test_each_sample_has_its_own_motion():
    alignment, frames = EgoAlignment(), [frame_at(5, 120), frame_at(2, 10), frame_at(7, 30)]
    histories = [history_at(0, 90), None, history_at(9, 40)]
    together = alignment.motion(frames, histories)
    assert together.turn.tolist() == pytest.approx([30, 0, -10])
    assert together.translation[:, 0].tolist() == pytest.approx([5, 0, -2])
    aligned = alignment.aligned(histories, together, GRID, torch.zeros(100, 4))
    assert aligned.exists.tolist() == [True, False, True]
    assert (aligned.shift.abs().amax(1) > 0.01).tolist() == [True, False, True]
    none = alignment.aligned([None, None], alignment.motion(frames[:2], [None, None]), GRID, torch.zeros(100, 4))
    assert none.bev_embed.shape == (2, 100, 4) and not none.exists.any()


def test_alignment_can_be_switched_off():
    bev = torch.randn(1, 100, 4)
    motion = EgoAlignment().motion([frame_at(5, 120)], [history_at(0, 90)])
    rotated, shift = EgoAlignment().align(bev, motion, GRID)
    assert not torch.equal(rotated, bev)
    assert shift.abs().max() > 0.01
    same, nothing = EgoAlignment(align_history=False).align(bev, motion, GRID)
    assert torch.equal(same, bev)
    assert nothing.tolist() == [[0, 0]]


def test_channels_that_the_network_does_not_see_are_zero():
    alignment = EgoAlignment(can_bus_channels=(0, 17))
    assert vector(alignment, frame_at(3, 95), history_at(1, 90)) == pytest.approx([2, *[0] * 16, 5])
    with pytest.raises(ValueError, match='numbers from 0 to 17'):
        EgoAlignment(can_bus_channels=(18,))


def test_a_frame_copies_what_the_meta_holds():
    can_bus = torch.tensor(RECORDED, dtype=torch.float64)
    frame = frame_at(can_bus=can_bus)
    frame.can_bus[0] = 7
    assert can_bus[0] == 0.5
