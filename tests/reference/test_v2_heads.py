"""Training steps of the published BEVFormerV2's heads, each alone."""

import pytest
import torch
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.structures import InstanceData

from bevformer_plugin.configuration import load_config
from bevformer_plugin.datasets.transforms.bev_augmentation import bev_matrix
from bevformer_plugin.geometry import BEVGrid, transform_bev
from bevformer_plugin.models import BEVEncoder, BEVFusion, CameraFeatures, EncodedFrames, Frame
from bevformer_plugin.models.heads.camera_boxes import rotation_matrices
from bevformer_plugin.models.heads.camera_targets import CameraInstances
from bevformer_plugin.weights import to_ours
from bevformer_plugin.weights.layout import our_name, swap_box_convention
from tests.helpers.reference_files import published_weights, v2_arrays, v2_manifest
from tests.helpers.repository import CONFIGS
from tests.reference.v2_frames import with_published_losses, with_published_starts

RANGE = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)


def weights_of(case: str, place: str) -> dict[str, torch.Tensor]:
    """Weights of a module, filled by its own names, in our names of the place where it sits in a detector."""
    weights = published_weights(v2_manifest('modules')[case])
    return to_ours({f'{place}{name}': value for name, value in weights.items()})


def gradient_norms(expected: dict[str, torch.Tensor], place: str) -> dict[str, float]:
    """The file's gradient norms by our names."""
    return {
        our_name(place + name.removeprefix('grad_norm/')): norm.item()
        for name, norm in expected.items()
        if name.startswith('grad_norm/')
    }


def test_v2_perspective_head():
    expected = v2_arrays('dd3d.npz')
    names = sorted(name for name in expected if name.startswith('feature_level'))
    levels = [expected[name].clone().requires_grad_() for name in names]
    cfg = load_config(str(CONFIGS.parent / 'bevformer_v2' / 't1_base_24e.py')).model.heads.perspective
    grid = BEVGrid(4, 4, RANGE)
    head = with_published_losses(MODELS.build({**cfg, 'embed_dims': levels[0].shape[1], 'grid': grid})).train()
    own = {f'heads.perspective.{name}': value for name, value in head.state_dict().items()}
    started = with_published_starts(weights_of('dd3d', 'fcos3d_bbox_head.'), own)
    head.load_state_dict({name.removeprefix('heads.perspective.'): value for name, value in started.items()})

    instances = CameraInstances(
        images=expected['ann_image'],
        labels=expected['ann_category'],
        boxes2d=expected['ann_bbox'].float(),
        boxes3d=expected['ann_bbox3d'].float(),
        attributes=expected['ann_attribute'],
        speeds=expected['ann_speed'].float(),
    )
    part = head.locations(levels, instances, expected['intrinsics'].float())
    assert torch.equal(part.targets.labels, expected['labels'])
    assert torch.equal(part.targets.positives, expected['pos_inds'])
    assert torch.equal(part.points, expected['pos_locations'])
    torch.testing.assert_close(part.targets.sides, expected['pos_box2d_targets'])
    assert torch.equal(part.attributes, expected['pos_attributes'])
    torch.testing.assert_close(part.speeds, expected['pos_speeds'].float(), equal_nan=True)

    boxes = head.predicted_boxes(part)
    near = dict(atol=1e-4, rtol=0)
    torch.testing.assert_close(boxes.rotations, rotation_matrices(expected['pred_quat']), **near)
    torch.testing.assert_close(boxes.projected_centers, expected['pred_proj_ctr'], **near)
    torch.testing.assert_close(boxes.depths, expected['pred_depth'][:, 0], **near)
    torch.testing.assert_close(boxes.sizes, expected['pred_size'], **near)
    torch.testing.assert_close(boxes.centers, expected['pred_tvec'], **near)
    for ours, theirs in ((boxes, 'pred_corners'), (part.true_boxes, 'target_corners')):
        assert torch.cdist(ours.corners(), expected[theirs]).amin(2).max() < 1e-3  # in any order
    error = (boxes.corners() - part.true_boxes.corners()).abs().mean((1, 2))
    torch.testing.assert_close(error, expected['corner_error'], **near)

    losses = head.losses([part])
    theirs = {key.removeprefix('loss.'): value.item() for key, value in expected.items() if key.startswith('loss.')}
    assert {key: value.item() for key, value in losses.items()} == pytest.approx(theirs, rel=1e-4)
    sum(losses.values()).backward()
    theirs = gradient_norms(expected, 'fcos3d_bbox_head.')
    norms = {name.removeprefix('heads.perspective.'): norm for name, norm in theirs.items()}
    ours = {name: p.grad.norm().item() for name, p in head.named_parameters() if p.grad is not None}
    assert ours == pytest.approx(norms, rel=1e-3, abs=1e-5)
    for level, features in enumerate(levels):
        norm = expected[f'grad_norm_feature_level{level}'].item()
        assert features.grad.norm().item() == pytest.approx(norm, rel=1e-3)
    for name, ours in head([level.detach() for level in levels])[2].items():
        theirs = expected[f'level2_{dict(attribute="attr").get(name, name)}']
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-5)


def test_v2_head_train():
    expected = v2_arrays('head_train.npz')
    groups = int(expected['groups'])
    layers, _, queries, classes = expected['all_cls_scores'].shape
    weights = weights_of('head_train', 'pts_bbox_head.')
    channels = expected['feature_level0'].shape[2]
    height = width = round(expected['bev_embed'].shape[0] ** 0.5)
    grid = BEVGrid(height, width, RANGE)
    cfg = load_config(str(CONFIGS.parent / 'bevformer_v2' / 't2_24e.py')).model
    small = dict(feedforward_channels=len(weights['bev_encoder.encoder.layers.0.ffn.layers.0.0.weight']), dropout=0.0)
    encoder_layers = len({name.split('.')[3] for name in weights if name.startswith('bev_encoder.encoder.layers.')})
    encoder_cfg = {**cfg.bev_encoder, **small, 'encoder': {**cfg.bev_encoder.encoder, 'num_layers': encoder_layers}}
    cameras = len(expected['lidar2img'])
    encoder = MODELS.build(
        {**encoder_cfg, 'grid': grid, 'embed_dims': channels, 'num_cameras': cameras, 'num_levels': 4}
    )
    head_cfg = {**cfg.heads.detection, **small, 'decoder': {**cfg.heads.detection.decoder, 'num_layers': layers}}
    head_cfg['queries'] = dict(type='LearnedQueries', num_query=queries // groups, num_groups=groups)
    head = MODELS.build({**head_cfg, 'grid': grid, 'embed_dims': channels})
    assert isinstance(encoder, BEVEncoder) and head.num_classes == classes
    before = list(expected['prev_bev'][:, None])  # of each frame before (1, Q, C)
    fusion = BEVFusion(
        len(before) + 1, channels, grid, dict(type='BN'), len(weights['bev_fusion.layers.0.conv1.weight'])
    )
    heads = torch.nn.ModuleDict({'detection': head})
    parts = torch.nn.ModuleDict({'bev_encoder': encoder, 'heads': heads, 'bev_fusion': fusion})
    parts.load_state_dict(weights)
    parts.train()

    frame = Frame('', 'rig', 0.0, expected['lidar2img'].double(), torch.eye(4).double(), torch.zeros(13).double())
    levels = [expected[f'feature_level{level}'].clone().requires_grad_() for level in range(4)]
    features = CameraFeatures([0], levels, tuple(expected['image_shape'].tolist()))
    draw = [expected[name].item() for name in ('rot_angle', 'scale_ratio', 'flip_dx', 'flip_dy')]
    matrix = torch.from_numpy(bev_matrix(*draw))
    current = transform_bev(encoder(features, [frame], [None]), matrix[None], grid)
    bev_embed = fusion([*before, current])
    torch.testing.assert_close(bev_embed[0], expected['bev_embed'], atol=1e-4, rtol=0)

    outputs = head(bev_embed)
    torch.testing.assert_close(outputs.cls_scores, expected['all_cls_scores'], atol=1e-4, rtol=0)
    rows = swap_box_convention(outputs.bbox_preds.movedim(-1, 0)).movedim(0, -1)
    torch.testing.assert_close(rows, expected['all_bbox_preds'], atol=5e-4, rtol=0)
    sample = Det3DDataSample()
    sample.gt_instances_3d = InstanceData(
        bboxes_3d=LiDARInstance3DBoxes(expected['gt_boxes_lwh'], box_dim=9), labels_3d=expected['gt_labels']
    )
    losses = head.loss(EncodedFrames(bev_embed, [features], [frame]), [sample])
    theirs = {key.removeprefix('loss.'): value.item() for key, value in expected.items() if key.startswith('loss.')}
    assert {key: value.item() for key, value in losses.items()} == pytest.approx(theirs, rel=1e-4)
    sum(losses.values()).backward()
    ours = {name: p.grad.norm().item() for name, p in parts.named_parameters() if p.grad is not None}
    assert ours == pytest.approx(gradient_norms(expected, 'pts_bbox_head.'), rel=5e-3, abs=1e-4)
