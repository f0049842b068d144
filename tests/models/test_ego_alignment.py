"""How ego motion enters the model."""

import numpy as np
import pytest
import torch

from bevformer_plugin.geometry import BEVGrid
from bevformer_plugin.models import BEVHistory, EgoAlignment

GRID = BEVGrid(10, 10, (-50.0, -50.0, -5.0, 50.0, 50.0, 3.0))


def pose(x: float = 0.0, degrees: float = 90.0) -> torch.Tensor:
    can_bus = torch.zeros(18, dtype=torch.float64)
    can_bus[0], can_bus[3:7] = x, torch.tensor([0.5, 0.25, 0.125, 0.75])
    can_bus[16], can_bus[17] = np.deg2rad(degrees), degrees
    return can_bus


def test_default_wraps_and_keeps_the_quaternion():
    can_bus = EgoAlignment().relative(pose(3, degrees=1), pose(1, degrees=359))
    assert can_bus[0] == 2
    assert can_bus[17] == pytest.approx(2)
    assert can_bus[3:7].tolist() == [0.5, 0.25, 0.125, 0.75]


def test_preset_has_the_published_quirks():
    preset = EgoAlignment.from_config(dict(preset='official_v1'))
    can_bus = preset.relative(pose(degrees=1), pose(degrees=359))
    assert can_bus[17] == pytest.approx(-358)
    assert can_bus[3:7].tolist() == [0.5] * 4
    assert (preset.rotate_center, preset.rotate_interpolation) == ((100.0, 100.0), 'nearest')


def test_fields_win_over_the_preset():
    mixed = EgoAlignment.from_config(dict(preset='official_v1', wrap_heading=True))
    assert mixed.wrap_heading
    assert mixed.quaternion_repeats_w


def test_without_history_nothing_moved():
    can_bus = EgoAlignment().relative(pose(3), None)
    assert can_bus[:3].tolist() == [0, 0, 0]
    assert can_bus[17] == 0
    assert can_bus[16] == pytest.approx(np.pi / 2)


def test_alignment_can_be_switched_off():
    bev = torch.randn(1, 100, 4)
    motion = EgoAlignment().relative(pose(5, 120), pose(0, 90))[None]
    rotated, shift = EgoAlignment().align(bev, motion, GRID)
    assert not torch.equal(rotated, bev)
    assert shift.abs().max() > 0.01
    same, nothing = EgoAlignment(align_history=False).align(bev, motion, GRID)
    assert torch.equal(same, bev)
    assert nothing.tolist() == [[0, 0]]


def test_unused_can_bus_channels_are_zero():
    vectors = torch.arange(1.0, 19.0).repeat(2, 1)
    seen = EgoAlignment(can_bus_channels=(0, 17)).visible_channels(vectors)
    assert seen[1].tolist() == [1.0] + [0.0] * 16 + [18.0]
    with pytest.raises(ValueError, match='numbers from 0 to 17'):
        EgoAlignment(can_bus_channels=(18,))


def test_history_copies_the_infos_vector():
    meta = dict(can_bus=np.arange(18.0), scene_token='a', timestamp=1)
    history = BEVHistory.of_frame(torch.zeros(100, 4), meta)
    history.can_bus[0] = 7
    assert meta['can_bus'][0] == 0
    with pytest.raises(ValueError, match='18 values'):
        BEVHistory.of_frame(torch.zeros(100, 4), dict(meta, can_bus=np.zeros(17)))
