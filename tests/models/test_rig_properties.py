"""Cameras, images and grids of other kinds than the released ones: what has to change, and what must not."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes, points_cam2img
from torch import Tensor, nn
from torch.nn import functional as F

from bevformer_plugin.geometry import BEVGrid, heading_of, pillar_points, project_to_cameras
from bevformer_plugin.layers import PillarHits
from bevformer_plugin.models import BEVHistory, CameraFeatures, Frame, PerspectiveSupervision
from bevformer_plugin.visualization.camera_overlay import cut_segments
from tests.helpers.landmarks import planar_pose, to_cells, to_global
from tests.helpers.module_calls import record_calls
from tests.models.shrunk_configs import NAMES, assert_same_gradients, build_shrunk, gradients
from tests.models.small_detector import IMAGE_HW, batch, forward

CLOSE = dict(atol=1e-4, rtol=1e-4)
OUTPUTS = ('bev_embed', 'cls_scores', 'bbox_preds')
GRIDS = {  # (bev_h, bev_w) and range
    'tall, square cells': ((12, 8), (-32.0, -48.0, -5.0, 32.0, 48.0, 3.0)),
    'wide, oblong cells': ((8, 12), (-30.0, -48.0, -5.0, 30.0, 48.0, 3.0)),
    'vehicle off the centre': ((12, 8), (-20.0, -16.0, -5.0, 36.0, 56.0, 3.0)),
}
SYMMETRIES = ('left-right', 'front-back', 'right-front')


def image_gradients(model: nn.Module, inputs: dict, samples: list[Det3DDataSample]) -> Tensor:
    """(B, N) largest gradient of all losses in each image of the current frames."""
    inputs['imgs'].requires_grad_()
    sum(model(inputs, samples, mode='loss').values()).backward()
    assert inputs['imgs'].grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    return inputs['imgs'].grad[:, -1].abs().amax(dim=(2, 3, 4))


def reorder(sample: Det3DDataSample, order: list[int]) -> Det3DDataSample:
    """The same frames with their cameras in another order."""
    sample = sample.clone()
    history = [{**meta, 'lidar2img': meta['lidar2img'][order]} for meta in sample.history]
    sample.set_metainfo({'lidar2img': sample.lidar2img[order], 'history': history})
    return sample


# Cameras


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('num_cameras', [1, 5, 7])
def test_every_one_of_n_cameras_is_trained_on(make_sample, name, num_cameras):
    model = build_shrunk(name, num_cameras)
    items = [make_sample(range(2), scene, num_cameras) for scene in 'ab']
    reached = image_gradients(model, *batch(*items))
    assert reached.shape == (2, num_cameras)
    assert (reached > 0).all()
    outputs = forward(model, *batch(*items))
    assert outputs['bev_embed'].shape == (2, 120, 32)
    assert all(outputs[key].isfinite().all() for key in OUTPUTS)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('order', [[4, 2, 0, 1, 3], [5, 3, 6, 1, 0, 2, 4]], ids=len)
def test_cameras_have_no_order(make_sample, name, order):
    model = build_shrunk(name, len(order))
    embeddings = model.bev_encoder.cams_embeds
    imgs, sample = make_sample(range(2), 'a', len(order))

    def run(imgs: Tensor, sample: Det3DDataSample) -> tuple[dict, dict, dict]:
        with torch.no_grad():
            outputs = forward(model, *batch((imgs, sample)))
        losses = model(*batch((imgs, sample)), mode='loss')
        return outputs, losses, gradients(model, sum(losses.values()))

    expected, expected_losses, expected_gradients = run(imgs, sample)
    swapped, _, _ = run(imgs[:, order], sample)
    assert (swapped['bev_embed'] - expected['bev_embed']).abs().mean() > 1e-3  # images of other cameras do matter
    with torch.no_grad():
        embeddings.copy_(embeddings[order].clone())
    outputs, losses, reached = run(imgs[:, order], reorder(sample, order))
    for key in OUTPUTS:
        torch.testing.assert_close(outputs[key], expected[key], **CLOSE)
    for key, value in expected_losses.items():
        torch.testing.assert_close(losses[key], value, **CLOSE)
    name = 'bev_encoder.cams_embeds'
    expected_gradients[name] = expected_gradients[name][order]
    assert_same_gradients(reached, expected_gradients)


# Grids


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('grid', GRIDS)
def test_grids_that_are_not_square_train_and_predict(make_sample, name, grid):
    model = build_shrunk(name, 6, *GRIDS[grid])
    inputs, samples = batch(make_sample(range(2), 'a'), make_sample(range(1), 'b'))
    assert (image_gradients(model, inputs, samples) > 0).all()
    results = model.eval().predict(*batch(make_sample(range(1), 'a'), make_sample(range(1), 'b')))
    low, high = torch.tensor(GRIDS[grid][1]).view(2, 3)
    for result in results:
        center = result.pred_instances_3d.bboxes_3d.gravity_center
        assert len(center) > 0
        assert ((center >= low) & (center <= high)).all()


@pytest.mark.parametrize(
    ('bev_grid', 'extent'),
    [
        ((48, 32), (-32.0, -48.0, -5.0, 32.0, 48.0, 3.0)),
        ((32, 48), (-30.0, -48.0, -5.0, 30.0, 48.0, 3.0)),
        ((48, 32), (-20.0, -16.0, -5.0, 36.0, 56.0, 3.0)),
    ],
    ids=list(GRIDS),
)
@pytest.mark.parametrize(('heading', 'turn'), [(40, 12), (355, 9), (200, -15)])
@torch.no_grad()
def test_attention_reads_the_history_where_the_world_is_now(bev_grid, extent, heading, turn):
    """From poses to what a query without offsets sees of the previous BEV: a landmark at its place in this frame."""
    model = build_shrunk('bevformer_nano', 1, bev_grid, extent)
    grid = BEVGrid(*bev_grid, extent)
    calls = record_calls(model.bev_encoder.encoder.layers[0])

    def meta(frame: int, x: float, y: float, degrees: float) -> dict:
        ego2global = planar_pose(x, y, degrees)
        return dict(scene_token='a', timestamp=0.5 * frame, ego2global=ego2global, lidar2img=np.eye(4)[None])

    def place(point: Tensor, at: dict) -> Tensor:
        """(column, row) of a global point in the grid of a frame."""
        return to_cells(point, at['ego2global'], grid)

    course = math.radians(heading + turn / 2)
    before = meta(0, 300, 200, heading)
    now = meta(1, 300 + 6 * math.cos(course), 200 + 6 * math.sin(course), heading + turn)
    landmark = to_global(13, 6, before['ego2global'])
    rows, columns = torch.meshgrid(*(torch.arange(side) + 0.5 for side in bev_grid), indexing='ij')
    cells = torch.stack([columns, rows], dim=-1).flatten(0, 1)  # Qx2
    blob = torch.exp(-(cells - place(landmark, before)).square().sum(-1) / 4).float()
    last, current = model.frames_of([before, now])
    history = BEVHistory(blob[:, None].expand(-1, 32), last)
    features = CameraFeatures([0], [torch.zeros(1, 1, 32, *hw) for hw in ((8, 12), (4, 6))], IMAGE_HW)
    model.bev_encoder(features, [current], [history])

    (call,) = calls
    previous, reference = call.inputs['tsa_values'][0, 0], call.inputs['tsa_reference_points'][0, 0]
    previous = previous.T.unflatten(1, bev_grid)[None, :1]
    read = F.grid_sample(previous, 2 * reference.view(1, 1, -1, 2) - 1, align_corners=False).flatten()
    assert read.sum() > 0.9 * blob.sum()
    center = (read[:, None] * cells).sum(0) / read.sum()
    assert (center - place(landmark, now)).norm() < 0.05
    assert (center - place(landmark, before)).norm() > 0.5


def mirror_map(bev: Tensor, bev_hw: tuple[int, int], symmetry: str) -> Tensor:
    """(..., Q, C) of a grid to the mirrored grid's."""
    maps = bev.unflatten(-2, bev_hw)
    mirrored = {
        'left-right': lambda: maps.flip(-2),
        'front-back': lambda: maps.flip(-3),
        'right-front': lambda: maps.transpose(-2, -3),
    }[symmetry]()
    return mirrored.flatten(-3, -2)


def mirror_grid(grid: BEVGrid, symmetry: str) -> BEVGrid:
    """The grid that covers the mirrored range."""
    x_min, y_min, z_min, x_max, y_max, z_max = grid.point_cloud_range
    if symmetry == 'right-front':
        return BEVGrid(grid.bev_w, grid.bev_h, (y_min, x_min, z_min, y_max, x_max, z_max))
    if symmetry == 'left-right':
        return BEVGrid(grid.bev_h, grid.bev_w, (-x_max, y_min, z_min, -x_min, y_max, z_max))
    return BEVGrid(grid.bev_h, grid.bev_w, (x_min, -y_max, z_min, x_max, -y_min, z_max))


def mirror_pairs(values: Tensor, symmetry: str) -> Tensor:
    """(..., 2) of (x, y) vectors."""
    if symmetry == 'right-front':
        return values.flip(-1)
    return values * torch.tensor([-1.0, 1.0] if symmetry == 'left-right' else [1.0, -1.0]).to(values)


def mirror_pose(ego2global: Tensor, symmetry: str) -> Tensor:
    """(4, 4): the mirrored vehicle in a world with y turned over."""
    heading = {'left-right': 0, 'front-back': math.pi, 'right-front': math.pi / 2}[symmetry] - heading_of(ego2global)
    return planar_pose(ego2global[0, 3], -ego2global[1, 3], torch.rad2deg(heading))


def mirror_cameras(lidar2img: Tensor, symmetry: str) -> Tensor:
    """(B, N, 4, 4) that send a mirrored point to the pixel of the point."""
    columns = mirror_pairs(lidar2img[..., :2], symmetry)
    return torch.cat([columns, lidar2img[..., 2:]], dim=-1)


def mirror_offsets(model: nn.Module, symmetry: str) -> None:
    """Let the offsets of temporal self-attention, which are on the ground, point in mirrored directions."""
    for layer in model.bev_encoder.encoder.layers:
        offsets = layer.temporal_self_attention.attention.sampling_offsets
        weight, bias = offsets.weight.unflatten(0, (-1, 2)), offsets.bias.unflatten(0, (-1, 2))
        offsets.weight.copy_(mirror_pairs(weight.movedim(1, -1), symmetry).movedim(-1, 1).flatten(0, 1))
        offsets.bias.copy_(mirror_pairs(bias, symmetry).flatten())


class Positions(nn.Module):
    """Given positions in place of learned ones, whose sums of rows and columns have no mirror image."""

    def __init__(self, positions: Tensor) -> None:
        super().__init__()
        self.positions = positions

    def forward(self, mask: Tensor) -> Tensor:
        """(Q, C) positions as (1, C, H, W)."""
        return self.positions.T.unflatten(1, mask.shape[-2:])[None]


@pytest.mark.parametrize('grid', GRIDS)
@pytest.mark.parametrize('symmetry', SYMMETRIES)
@torch.no_grad()
def test_a_mirrored_world_gives_the_mirrored_bev(make_meta, grid, symmetry):
    """Grid, cameras, drive, history and offsets mirrored alike; the images stay."""
    grid = BEVGrid(*GRIDS[grid][0], GRIDS[grid][1])
    generator = torch.Generator().manual_seed(3)
    query, position, *bevs = torch.randn(4, grid.num_queries, 32, generator=generator)
    features = CameraFeatures([0, 1], [torch.randn(2, 6, 32, 4, 6, generator=generator)], IMAGE_HW)
    frames = [
        [Frame.from_meta({**make_meta(frame, scene), 'ego2global': pose}, 6) for frame, pose in enumerate(poses)]
        for scene, poses in (
            ('a', (planar_pose(5, -2, 57), planar_pose(8, 3, 64))),
            ('b', (planar_pose(0, 1, 355), planar_pose(-6, 3, 344))),
        )
    ]

    def encode(grid: BEVGrid, maps: list[Tensor], drives: list[list[Frame]], mirrored: bool) -> Tensor:
        model = build_shrunk('bevformer_tiny', 6, (grid.bev_h, grid.bev_w), grid.point_cloud_range)
        encoder = model.bev_encoder
        for parameter in encoder.can_bus_mlp[-1].parameters():
            parameter.zero_()  # what the network makes of the vehicle's motion knows no symmetry
        if mirrored:
            mirror_offsets(model, symmetry)
        encoder.bev_embedding.weight.copy_(maps[0])
        encoder.positional_encoding = Positions(maps[1])
        histories = [BEVHistory(bev, drive[0]) for bev, drive in zip(maps[2:], drives, strict=True)]
        return encoder(features, [drive[1] for drive in drives], histories)

    expected = encode(grid, [query, position, *bevs], frames, mirrored=False)
    bev_hw, mirrored_grid = (grid.bev_h, grid.bev_w), mirror_grid(grid, symmetry)
    maps = [mirror_map(bev, bev_hw, symmetry) for bev in (query, position, *bevs)]
    moving = [
        [
            replace(
                frame,
                ego2global=mirror_pose(frame.ego2global, symmetry),
                lidar2img=mirror_cameras(frame.lidar2img, symmetry),
            )
            for frame in drive
        ]
        for drive in frames
    ]
    mirrored = encode(mirrored_grid, maps, moving, mirrored=True)
    torch.testing.assert_close(mirrored, mirror_map(expected, bev_hw, symmetry), **CLOSE)
    unmirrored_drive = [
        [replace(frame, lidar2img=mirror_cameras(frame.lidar2img, symmetry)) for frame in drive] for drive in frames
    ]
    assert (encode(mirrored_grid, maps, unmirrored_drive, mirrored=True) - mirrored).abs().mean() > 1e-3


# Image sizes


def test_padding_moves_no_pixel(make_meta):
    """Fractions of the padded image change with it; where they lie in the image does not."""
    points = pillar_points(BEVGrid(20, 16, (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)), 4)
    lidar2img = torch.as_tensor(make_meta(0)['lidar2img'])[None]
    (small, seen), (large, seen_padded) = (project_to_cameras(points, lidar2img, hw) for hw in ((64, 96), (96, 160)))
    pixels = small * torch.tensor([96, 64])
    torch.testing.assert_close((large * torch.tensor([160, 96]))[seen], pixels[seen], atol=1e-3, rtol=0)
    assert seen_padded[seen].all()
    new = pixels[seen_padded & ~seen]  # the padding counts as image, as in the published code
    assert len(new) > 0
    assert ((new[:, 0] >= 96 - 1e-3) | (new[:, 1] >= 64 - 1e-3)).all()


@torch.no_grad()
def test_padding_with_zeros_is_the_nothing_around_an_image(make_meta):
    """Spatial cross-attention on padded values: only queries that the padding makes visible change."""
    model = build_shrunk('bevformer_tiny')
    attention = model.bev_encoder.encoder.layers[0].spatial_cross_attention
    attention.deformable_attention.value_proj.bias.zero_()  # or the padding would not be zeros to the sampling
    points = pillar_points(model.bev_encoder.grid, 4)
    lidar2img = torch.as_tensor(make_meta(0)['lidar2img'])[None]
    generator = torch.Generator().manual_seed(0)
    query, features = torch.randn(1, 120, 32, generator=generator), torch.randn(1, 6, 32, 4, 6, generator=generator)

    def attend(features: Tensor, image_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
        reference, visible = project_to_cameras(points, lidar2img, image_hw)
        values = features.flatten(3).transpose(2, 3)
        shapes = torch.tensor([features.shape[-2:]])
        return attention(query, values, shapes, PillarHits.from_projection(reference, visible))[0], visible[0].any(-1)

    expected, seen = attend(features, (64, 96))
    output, seen_padded = attend(F.pad(features, (0, 3, 0, 1)), (80, 144))  # a value is 16 pixels
    same = (seen == seen_padded).all(0)
    assert 0 < same.float().mean() < 1
    torch.testing.assert_close(output[same], expected[same], **CLOSE)


def test_perspective_targets_stay_in_their_cells_when_images_are_padded(make_sample):
    _, sample = make_sample(range(1), num_objects=20)
    truth = sample.gt_instances_3d
    drawn = []
    for height, width in ((8, 12), (10, 18)):
        targets = torch.zeros(6, 3, height, width), torch.zeros(6, height, width, 6), torch.zeros(6, height, width, 1)
        PerspectiveSupervision._draw(
            *targets,
            truth.bboxes_3d,
            truth.labels_3d,
            torch.as_tensor(sample.lidar2img).float(),
            (8 * height, 8 * width),
        )
        drawn.append(targets)
    (_, values, flags), (_, padded_values, padded_flags) = drawn
    assert flags.sum() > 5
    assert torch.equal(padded_flags[:, :8, :12], flags)
    torch.testing.assert_close(padded_values[:, :8, :12], values, **CLOSE)


# Visibility


@torch.no_grad()
def test_a_query_that_no_camera_sees_keeps_only_its_residual(make_sample):
    model = build_shrunk('bevformer_tiny', 1)
    layer = model.bev_encoder.encoder.layers[0].spatial_cross_attention
    calls = record_calls(layer)
    model(*batch(make_sample(range(1), num_cameras=1)), mode='tensor')
    (call,) = calls
    query, hits, output = call.inputs['query'][0], call.inputs['hits'], call.output[0]
    unseen = torch.ones(len(query), dtype=torch.bool)
    unseen[hits.query_index] = False
    assert 0.5 < unseen.float().mean() < 1
    update = output - query
    torch.testing.assert_close(update[unseen], layer.output_proj.bias.expand_as(update[unseen]))
    assert (update[~unseen] - layer.output_proj.bias).abs().amax(-1).min() > 1e-3


def skyward(lidar2img: np.ndarray, height: float) -> np.ndarray:
    """Wide cameras at ``height`` that look straight up."""
    up = np.array([[9.0, 0, 48, -48 * height], [0, 9, 32, -32 * height], [0, 0, 1, -height], [0, 0, 0, 1]])
    return np.broadcast_to(up, lidar2img.shape).copy()


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize(('height', 'sees'), [(10.0, False), (-1.0, True)], ids=['nothing', 'pillars in part'])
def test_training_survives_cameras_that_see_little(make_sample, name, height, sees):
    """Above the world a camera sees nothing; in its middle, pillars pass through the plane of the camera."""
    model = build_shrunk(name)
    imgs, sample = make_sample(range(2))
    sample.set_metainfo(
        {
            'lidar2img': skyward(sample.lidar2img, height),
            'history': [{**meta, 'lidar2img': skyward(meta['lidar2img'], height)} for meta in sample.history],
        }
    )
    _, visible = project_to_cameras(
        pillar_points(model.bev_encoder.grid, 4), torch.as_tensor(sample.lidar2img)[None], IMAGE_HW
    )
    assert visible.any() == sees
    assert not visible.all(-1).any()  # no pillar as a whole
    reached = image_gradients(model, *batch((imgs, sample)))
    assert (reached > 0).any() == (sees or name == 'bevformer_nano')  # whose supervision in the views stays


# Boxes in the cameras


@pytest.mark.parametrize('scene', ['a', 'b'])
def test_corners_of_boxes_are_where_mmdet3d_sees_them(make_sample, scene):
    """Pillar projection and drawing against mmdet3d's corners and projection; a corner by hand for both."""
    _, sample = make_sample(range(1), scene, num_objects=30)
    boxes = sample.gt_instances_3d.bboxes_3d
    lidar2img = torch.as_tensor(sample.lidar2img).float()
    reference, _ = project_to_cameras(boxes.corners.transpose(0, 1), lidar2img[None], IMAGE_HW)
    pixels = reference[0] * torch.tensor([IMAGE_HW[1], IMAGE_HW[0]])  # Nxnx8x2
    compared = 0
    for camera, matrix in enumerate(lidar2img):
        expected = points_cam2img(boxes.corners, matrix, with_depth=True)  # nx8x3
        ahead = expected[..., 2] > 1
        compared += int(ahead.sum())
        torch.testing.assert_close(pixels[camera][ahead], expected[ahead][:, :2], atol=1e-2, rtol=1e-4)
        whole = ahead.all(-1)
        ends = boxes.corners[whole][:, [[0, 1], [4, 5]]]  # nx2x2x3, two edges
        drawn, shown = cut_segments(ends.numpy(), matrix[:3].numpy(), IMAGE_HW[::-1], margin=1e3)
        torch.testing.assert_close(
            torch.as_tensor(drawn)[shown], expected[whole][:, [[0, 1], [4, 5]], :2][shown], atol=1e-2, rtol=1e-3
        )
        assert shown.all()
    assert compared > 200


def test_a_corner_by_hand():
    """Corner 7 is front, left, bottom of a car that drives along +y."""
    box = LiDARInstance3DBoxes(torch.tensor([[10.0, 20.0, -1.0, 4.0, 2.0, 1.5, math.pi / 2, 0, 0]]), box_dim=9)
    assert box.corners[0, 7].tolist() == pytest.approx([9.0, 22.0, -1.0], abs=1e-5)
    forward = torch.tensor([[40.0, 48, 0, 0], [0, 32, -40, 0], [0, 1, 0, 0], [0, 0, 0, 1]])  # looks along +y
    reference, visible = project_to_cameras(box.corners[0, 7].view(1, 1, 3), forward[None, None], IMAGE_HW)
    assert visible.all()
    pixel = (reference.flatten() * torch.tensor([96, 64])).tolist()
    assert pixel == pytest.approx([40 * 9 / 22 + 48, 40 * 1 / 22 + 32], abs=1e-3)
