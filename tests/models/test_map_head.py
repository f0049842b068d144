"""The map head with both of its decoders."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from scipy.spatial.transform import Rotation

from bevformer_plugin.errors import InputError
from bevformer_plugin.geometry import BEVGrid
from bevformer_plugin.maps import IGNORED, PROTOCOLS, find_protocol
from bevformer_plugin.models import EncodedFrames, Frame
from bevformer_plugin.models.heads.map_decoders import read_at
from tests.models.small_detector import batch, detector_config

GRID = BEVGrid(25, 25, (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0))
DECODERS = {
    'conv': dict(type='ConvMapDecoder', channels=16, fine_channels=8),
    'mask': dict(type='MaskMapDecoder', num_layers=2, num_heads=4, feedforward_channels=32, dropout=0.0),
}
LOSSES = dict(
    loss_focal=dict(type='mmdet.FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.5, loss_weight=5.0),
    loss_dice=dict(type='mmdet.DiceLoss', naive_dice=True, eps=1.0, loss_weight=3.0),
)


def head_config(decoder='conv', protocol='paper', **changes):
    return dict(type='MapHead', protocol=protocol, decoder=DECODERS[decoder], **LOSSES, **changes)


def build_head(**arguments):
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        return MODELS.build(dict(head_config(**arguments), embed_dims=16, grid=GRID))


def frame(**changes):
    """A frame of a vehicle that drives uphill, with a LiDAR that is mounted askew."""
    matrices = []
    for angles, translation in (((37, 0.8, -0.6), (612.3, 487.9, 0.4)), ((-89.6, 0.9, 0.4), (0.94, 0.02, 1.84))):
        matrix = np.eye(4)
        matrix[:3, :3] = Rotation.from_euler('zyx', angles, degrees=True).as_matrix()
        matrix[:3, 3] = translation
        matrices.append(torch.from_numpy(matrix))
    values = dict(
        name='a',
        scene='s',
        timestamp=0.0,
        lidar2img=torch.eye(4)[None],
        ego2global=matrices[0],
        lidar2ego=matrices[1],
        can_bus=torch.zeros(13),
    )
    return Frame(**{**values, **changes})


def with_map(samples, protocol='paper', seed=0):
    """Give data samples random true maps."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(find_protocol(protocol).classes), 200, 200)
    for sample in samples:
        sample.gt_map = PixelData(data=torch.randint(0, 2, shape, generator=generator, dtype=torch.uint8))
    return samples


@pytest.mark.parametrize('decoder', DECODERS)
def test_a_detector_trains_and_predicts_both_tasks(build_detector, make_sample, decoder):
    heads = dict(detection=detector_config()['heads']['detection'], map=head_config(decoder))
    model = build_detector(heads=heads).train()
    inputs, samples = batch(make_sample(range(2), 'a', num_objects=3), make_sample(range(2), 'b', num_objects=3))
    with_map(samples)
    losses = model(inputs, samples, mode='loss')
    names = {'loss_map_focal', 'loss_map_dice'}
    if decoder == 'mask':
        names |= {'d0.loss_map_focal', 'd0.loss_map_dice'}
    assert {name for name in losses if 'map' in name} == names and 'loss_cls' in losses
    sum(losses[name] for name in names).backward()
    assert not [name for name, parameter in model.heads['map'].named_parameters() if parameter.grad is None]
    assert model.img_backbone.conv1.weight.grad.abs().sum() > 0

    inputs, samples = batch(make_sample(range(1), 'a'), make_sample(range(1), 'b'))
    with torch.no_grad():
        results = model.eval()(inputs, samples, mode='predict')
    first, second = (result.pred_map.data for result in results)
    assert first.shape == (4, 200, 200) and first.dtype == torch.float32 and not torch.equal(first, second)
    assert first.min() > 0 and first.max() < 1 and len(results[0].pred_instances_3d.scores_3d) > 0


def test_a_map_that_was_not_moved_with_its_bev_is_refused():
    moved = replace(frame(), bev_augmentation=2 * torch.eye(2, dtype=torch.float64))
    encoded = EncodedFrames(torch.zeros(1, GRID.num_queries, 16), [], [moved])
    with pytest.raises(InputError, match='were moved by RandomBEVAugmentation, and true maps are not with them'):
        build_head().loss(encoded, with_map([_empty_sample()]))


@pytest.mark.parametrize('decoder', DECODERS)
def test_all_parameters_are_used(decoder):
    head = build_head(decoder=decoder)
    head(EncodedFrames(torch.randn(1, GRID.num_queries, 16), [], [frame()])).sum().backward()
    assert not [name for name, parameter in head.named_parameters() if parameter.grad is None]


@pytest.mark.parametrize('decoder', DECODERS)
def test_a_decoder_can_draw_what_the_bev_holds(decoder):
    """One channel of the BEV holds each class; a few steps find out which."""
    head = build_head(decoder=decoder)
    generator = torch.Generator().manual_seed(1)
    blocks = (torch.rand(4, 5, 5, generator=generator) < 0.3).float()
    coarse = blocks.repeat_interleave(5, 1).repeat_interleave(5, 2)
    truth = coarse.repeat_interleave(8, 1).repeat_interleave(8, 2).byte()
    bev = torch.zeros(1, GRID.num_queries, 16)
    bev[0, :, :4] = coarse.flatten(1).T * 4 - 2
    encoded = EncodedFrames(bev, [], [frame()])
    sample = with_map([_empty_sample()])[0]
    sample.gt_map = PixelData(data=truth)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        sum(head.loss(encoded, [sample]).values()).backward()
        optimizer.step()
    with torch.no_grad():
        found = head.predict(encoded)['pred_map'][0].data > 0.5
    iou = (found & (truth == 1)).sum((1, 2)) / (found | (truth == 1)).sum((1, 2))
    assert iou.mean() > 0.65, iou


def _empty_sample():
    from mmdet3d.structures import Det3DDataSample

    return Det3DDataSample(metainfo={'sample_idx': 'a'})


@pytest.mark.parametrize('name', PROTOCOLS)
def test_features_are_read_where_the_cells_lie(name):
    """The BEV holds its own coordinates, so that what is read can be compared with where each cell is."""
    head = build_head(protocol=name)
    y, x = torch.meshgrid(*[(torch.arange(25) + 0.5) * 4.096 - 51.2] * 2, indexing='ij')
    places = head.places_of([frame()])
    read = read_at(torch.stack([x, y])[None], places)[0].permute(1, 2, 0)  # LiDAR frame, metres
    protocol = find_protocol(name)
    reach, cell = protocol.grid.point_cloud_range[3], protocol.grid.cell_x
    there = torch.stack(
        torch.meshgrid(*[(torch.arange(200, dtype=torch.float64) + 0.5) * cell - reach] * 2, indexing='xy'), dim=-1
    )
    if protocol.frame == 'lidar':
        expected = there
    else:
        # From the vehicle's x forward and y left, level for flat_ego, to the LiDAR, all in three dimensions.
        lidar2global = frame().ego2global @ frame().lidar2ego
        forward, left = there[..., 1], -there[..., 0]
        points = torch.stack([forward, left, torch.zeros_like(left), torch.ones_like(left)], dim=-1)
        frame2global = frame().ego2global.clone()
        if protocol.frame == 'flat_ego':
            heading = torch.atan2(frame2global[1, 0], frame2global[0, 0])
            frame2global[:3, :3] = torch.from_numpy(Rotation.from_euler('z', heading.item()).as_matrix())
        expected = (points @ (torch.linalg.inv(lidar2global) @ frame2global).T)[..., :2]
    inner = (expected.abs() < 48).all(dim=-1)
    assert inner.float().mean() > 0.8
    # Tilts of a degree or two lift a point 50 m away by more than a metre, which seen from above is a few centimetres.
    torch.testing.assert_close(read[inner].double(), expected[inner], atol=0.1, rtol=0)


def test_places_keep_their_precision_under_autocast():
    features = torch.randn(1, 3, 25, 25).bfloat16()
    places = build_head().places_of([frame()])
    expected = read_at(features.float(), places)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(read_at(features, places), expected)


def test_ignored_cells_do_not_count():
    head = build_head(protocol='cvt')
    sample = with_map([_empty_sample()], 'cvt')[0]
    sample.gt_map.data[0, :100] = IGNORED
    logits = torch.randn(1, 2, 200, 200, requires_grad=True)
    focal, dice = head._losses(logits, sample.gt_map.data[None])
    (focal + dice).backward()
    assert not logits.grad[0, 0, :100].any() and (logits.grad[0, 0, 100:] != 0).all() and logits.grad[0, 1].all()
    other = logits.detach().clone()
    other[0, 0, :100] += 3
    for one, two in zip(head._losses(other, sample.gt_map.data[None]), (focal, dice), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize('decoder', DECODERS)
def test_losses_are_float32_under_autocast(decoder):
    head = build_head(decoder=decoder)
    sample = with_map([_empty_sample()])[0]
    bev = torch.randn(1, GRID.num_queries, 16)
    expected = head.loss(EncodedFrames(bev, [], [frame()]), [sample])
    with torch.autocast('cpu', torch.bfloat16):
        losses = head.loss(EncodedFrames(bev, [], [frame()]), [sample])
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, expected[name], rtol=0.03, atol=0)


def test_a_nan_in_the_bev_is_refused():
    sample = with_map([_empty_sample()])[0]
    bev = torch.full((1, GRID.num_queries, 16), torch.nan)
    with pytest.raises(FloatingPointError, match='not finite: loss_map_focal, loss_map_dice'):
        build_head().loss(EncodedFrames(bev, [], [frame()]), [sample])


def test_what_a_map_head_needs_is_said():
    encoded = EncodedFrames(torch.randn(1, GRID.num_queries, 16), [], [frame()])
    with pytest.raises(ValueError, match=r'sample a has no true map: set .*map_protocol'):
        build_head().loss(encoded, [_empty_sample()])
    with pytest.raises(ValueError, match=r"has shape \(2, 200, 200\), protocol 'paper' has \(4, 200, 200\)"):
        build_head().loss(encoded, with_map([_empty_sample()], 'cvt'))
    with pytest.raises(ValueError, match="sample a has no lidar2ego, and maps by protocol 'lss'"):
        build_head(protocol='lss').places_of([frame(lidar2ego=None)])


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(protocol='pepar'), "no map protocol 'pepar': choose one of paper"),
        (
            dict(decoder=dict(type='ConvMapDecoder', channels=6)),
            'channels of ConvMapDecoder is a multiple of 4, got 6',
        ),
        (dict(decoder=dict(type='ConvMapDecoder', num_classes=6)), 'decoder sets num_classes, which the map head'),
        (dict(decoder=dict(type='MaskMapDecoder', num_heads=3)), 'num_heads of MaskMapDecoder divides the width 16'),
        (dict(decoder=dict(type='MaskMapDecoder', num_layers=0)), 'num_layers of MaskMapDecoder .* got 0'),
    ],
)
def test_bad_settings_are_refused(changes, message):
    with DefaultScope.overwrite_default_scope('mmdet3d'), pytest.raises(ValueError, match=message):
        MODELS.build({**head_config(), **changes, 'embed_dims': 16, 'grid': GRID})


def test_no_buffer_depends_on_the_protocol_in_checkpoints():
    names = build_head().state_dict()
    assert not [name for name in names if 'places' in name]
