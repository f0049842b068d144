"""A detector of fixed shapes gives the results of the one it was made from."""

import pytest
import torch
from mmcv.ops import ModulatedDeformConv2dPack
from torch import Tensor

from bevformer_plugin.deployment import HitBudget, budget_for
from bevformer_plugin.deployment.static_attention import StaticDeformConv, StaticHits
from bevformer_plugin.deployment.static_detector import StaticDetector, StaticEgoAlignment, padded_hw
from bevformer_plugin.errors import InputError
from bevformer_plugin.geometry import BEVGrid
from bevformer_plugin.layers import PillarHits
from bevformer_plugin.models import BEVFormer, BEVHistory, EgoAlignment, Frame
from bevformer_plugin.models.bev import ProposalLimits
from tests.deployment.exported.drives import drive, noise
from tests.models.shrunk_configs import SHRUNK, build_shrunk

IMAGE_HW = (64, 96)


def seen(cameras: int, queries: int, seed: int) -> tuple[Tensor, Tensor]:
    """Made-up points and visibility of one sample; the last query is seen by no camera."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(1, cameras, queries, 2, 2, generator=generator)
    visible = torch.rand(1, cameras, queries, 2, generator=generator) < 0.2
    visible[:, :, -1] = False
    return points, visible


def motion_of(detector: BEVFormer, frame: Frame, history: BEVHistory | None) -> Tensor:
    """The motion vector (18,) before the network's settings change it."""
    motion = detector.bev_encoder.ego_alignment.motion([frame], [history])
    return torch.cat([motion.translation[0], frame.can_bus, motion.heading, motion.turn]).float()


@torch.no_grad()
def assert_same_stream(detector: BEVFormer, frames: list[Frame]) -> None:
    """Every BEV, score and box of a drive, each side with its own history."""
    detector.eval()
    hw = padded_hw(detector.data_preprocessor, IMAGE_HW)
    static = StaticDetector(detector, hw, budget_for(detector, [frames[0].lidar2img], IMAGE_HW))
    history = theirs = None
    for number, frame in enumerate(frames):
        imgs = noise((1, detector.num_cameras, 3, *hw), number)
        used = None if history is None or history.frame.scene != frame.scene else history
        encoded = detector.encode(imgs, [frame], [used])
        outputs = detector.heads['detection'](encoded.bev_embed)
        before = torch.full_like(encoded.bev_embed, 1e3) if used is None else theirs
        bev, found, _, overflow = static(
            imgs,
            before,
            torch.tensor([float(used is not None)]),
            motion_of(detector, frame, used),
            frame.lidar2img[None].float(),
        )
        assert overflow.tolist() == [0, 0]
        torch.testing.assert_close(bev, encoded.bev_embed, atol=2e-4, rtol=0)
        torch.testing.assert_close(found.cls_scores, outputs.cls_scores, atol=5e-4, rtol=1e-4)
        torch.testing.assert_close(found.bbox_preds, outputs.bbox_preds, atol=5e-3, rtol=1e-4)
        (history,), theirs = encoded.histories(), bev
    assert used is not None


@pytest.mark.parametrize('name', SHRUNK)
def test_every_model(name):
    assert_same_stream(build_shrunk(name), drive(IMAGE_HW, frames=4, scene_starts=(0, 2)))


def test_attention_at_points_and_five_cameras():
    points = {
        'model.bev_encoder.encoder.spatial_cross_attention': {'type': 'PointSpatialCrossAttention', '_delete_': True}
    }
    detector = build_shrunk('bevformer_tiny', num_cameras=5, changes=points)
    assert_same_stream(detector, drive(IMAGE_HW, num_cameras=5, frames=2))


@pytest.mark.parametrize('cameras', [1, 6])
def test_tables_hold_every_hit(cameras):
    points, visible = seen(cameras, 50, cameras)
    exact = PillarHits.from_projection(points, visible)
    budget = HitBudget(int(exact.lengths.max()), int(exact.num_cameras_seeing.max()))
    static = StaticHits.from_projection(points, visible, budget)
    assert static.overflow.tolist() == [0, 0]
    values = noise((cameras * budget.hits, 3), 1)
    places = torch.cat([torch.arange(length) + n * budget.hits for n, length in enumerate(exact.lengths.tolist())])
    assert torch.equal(static.query_index.flatten()[places], exact.query_index)
    assert torch.equal(static.reference_points.flatten(0, 1)[places], exact.reference_points)
    means = static.mean_over_cameras(values)
    torch.testing.assert_close(means, exact.mean_over_cameras(values[places]))
    assert not means[0, -1].any()


@pytest.mark.parametrize(('hits', 'cameras'), [(1, 0), (0, 1), (2, 2)])
def test_what_has_no_room_is_counted(hits, cameras):
    points, visible = seen(6, 50, 0)
    exact = PillarHits.from_projection(points, visible)
    full = HitBudget(int(exact.lengths.max()), int(exact.num_cameras_seeing.max()))
    short = HitBudget(full.hits - hits, full.cameras - cameras)
    assert StaticHits.from_projection(points, visible, short).overflow.tolist() == [hits, cameras]
    roomy = StaticHits.from_projection(points, visible, HitBudget(full.hits + 5, full.cameras + 1))
    assert roomy.overflow.tolist() == [0, 0]


@pytest.mark.parametrize('wrap_heading', [True, False])
@pytest.mark.parametrize('center', [None, (9.0, 2.0)])
def test_ego_motion_from_the_motion_vector(center, wrap_heading):
    """In float32 without an arc tangent, on a grid whose cells are oblong and whose centre is not the vehicle."""
    grid = BEVGrid(8, 12, (-30.0, -20.0, -5.0, 50.0, 44.0, 3.0))
    alignment = EgoAlignment(wrap_heading=wrap_heading, rotate_center=center)
    static = StaticEgoAlignment(alignment, grid)
    for before, frame in zip(drive(IMAGE_HW), drive(IMAGE_HW)[1:], strict=False):
        bev = noise((1, grid.num_queries, 5), 3)
        motion = alignment.motion([frame], [BEVHistory(bev[0], before)])
        turned, shift = alignment.align(bev, motion, grid)
        vector = torch.cat([motion.translation[0], frame.can_bus, motion.heading, motion.turn]).float()
        moved = static.moved(vector, torch.ones(1))
        found, found_shift = static.align(bev, moved)
        torch.testing.assert_close(found, turned, atol=1e-4, rtol=0)
        torch.testing.assert_close(found_shift, shift, atol=1e-5, rtol=0)
        expected = alignment.motion_vector([frame], motion)[0].float()
        torch.testing.assert_close(static.motion_vector(moved), expected, atol=1e-5, rtol=0)


def test_a_turn_is_wrapped_for_models_that_wrap_it():
    grid = BEVGrid(4, 4, (-1.0, -1.0, -1.0, 1.0, 1.0, 1.0))
    static = StaticEgoAlignment(EgoAlignment(), grid)
    for turn, wrapped in ((350.0, -10.0), (-350.0, 10.0), (180.0, -180.0), (-180.0, -180.0), (179.5, 179.5)):
        vector = torch.zeros(18).index_fill(0, torch.tensor([17]), turn)
        assert static.moved(vector, torch.ones(1))[17] == wrapped
        assert static.moved(vector, torch.zeros(1))[17] == 0


def test_the_ablation_without_alignment_stays_without():
    detector = build_shrunk(
        'bevformer_tiny', changes={'model.ego_motion': dict(align_history=False, can_bus_channels=(0, 17))}
    )
    assert_same_stream(detector, drive(IMAGE_HW, frames=2))


def test_deformable_convolutions_convolve_all_images_at_once():
    torch.manual_seed(0)
    pack = ModulatedDeformConv2dPack(8, 6, 3, stride=2, padding=2, dilation=2, deform_groups=2)
    torch.nn.init.normal_(pack.conv_offset.weight, std=0.3)
    images = noise((3, 8, 11, 14), 0)
    torch.testing.assert_close(StaticDeformConv(pack)(images), pack(images))


def test_room_follows_the_calibrations():
    detector, frames = build_shrunk('bevformer_tiny'), drive(IMAGE_HW)
    (one,), wide = [frames[0].lidar2img], frames[0].lidar2img.clone()
    wide[:, :2, :2] *= 0.5
    budget = budget_for(detector, [one], IMAGE_HW)
    assert budget_for(detector, [one, one], IMAGE_HW) == budget
    assert budget_for(detector, [wide, one], IMAGE_HW).hits > budget.hits
    behind = one.clone()
    behind[:, 2] *= -1
    with pytest.raises(InputError, match='see nothing of the BEV'):
        budget_for(detector, [torch.zeros_like(one)], IMAGE_HW)
    assert budget.cameras <= 6 and budget.hits <= detector.bev_encoder.grid.num_queries


def test_parts_without_a_static_form_are_refused():
    attention = {'type': 'GlobalSpatialCrossAttention', '_delete_': True}
    detector = build_shrunk('bevformer_tiny', changes={'model.bev_encoder.encoder.spatial_cross_attention': attention})
    with pytest.raises(InputError, match='GlobalSpatialCrossAttention of a BEVFormerEncoderLayer cannot be exported'):
        StaticDetector(detector, IMAGE_HW, HitBudget(1, 1))
    detector.proposing_head = ('perspective', ProposalLimits(10, 0.05, 0.75))
    with pytest.raises(InputError, match=r'what heads\.perspective proposes, which cannot be exported'):
        StaticDetector(detector, IMAGE_HW, HitBudget(1, 1))
