"""Our model returns the published implementation's numbers; see tests/data/reference/README.md."""
import json
import pathlib

import numpy as np
import pytest
import torch
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from published_weights import (
    REFERENCE,
    boxes_to_our_rows,
    load_reference_module,
    manifest,
    our_name,
    published_state_dict,
)

from bevformer_plugin.geometry import BEVGrid, boxes_from_old_convention, boxes_to_old_convention
from bevformer_plugin.models import BEVFormerTransformer, HungarianAssigner3D, NMSFreeCoder

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / 'configs' / 'bevformer'
METRES = dict(atol=5e-4, rtol=1e-5)  # a position is a sigmoid stretched over 102.4 m: 5e-6 of it in float32


@pytest.fixture(scope='module')
def modules() -> dict:
    return {key: torch.from_numpy(value) for key, value in np.load(REFERENCE / 'modules.npz').items()}


def build(name: str) -> torch.nn.Module:
    config = Config.fromfile(CONFIGS / f'{name}.py').model
    config.img_backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        return MODELS.build(config)


def build_published(name: str) -> torch.nn.Module:
    model = build(name)
    model.load_state_dict(published_state_dict(manifest(name)))
    return model


def test_box_coder(modules):
    coder = NMSFreeCoder([-61.2, -61.2, -10.0, 61.2, 61.2, 10.0], max_num=40)
    boxes, scores, labels = coder.decode(modules['coder/cls'], boxes_to_our_rows(modules['coder/bbox'], -1))
    torch.testing.assert_close(boxes_to_old_convention(boxes), modules['coder/boxes'])
    torch.testing.assert_close(scores, modules['coder/scores'])
    assert torch.equal(labels, modules['coder/labels'])


def test_assigner(modules):
    assigner = HungarianAssigner3D(dict(type='mmdet.FocalLossCost', weight=2.0), reg_cost_weight=0.25)
    result = assigner.assign(modules['coder/cls'], boxes_to_our_rows(modules['coder/bbox'], -1),
                             modules['assigner/gt_labels'], boxes_from_old_convention(modules['assigner/gt_boxes']))
    assert torch.equal(result.gt_inds, modules['assigner/assigned_gt_inds'])
    assert torch.equal(result.labels, modules['assigner/assigned_labels'])


@torch.no_grad()
def test_transformer(modules):
    center = tuple(modules['transformer/rotate_center'].tolist())
    transformer = BEVFormerTransformer(
        encoder=dict(type='BEVFormerEncoder', num_layers=2),
        decoder=dict(type='DetectionTransformerDecoder', num_layers=2),
        num_cameras=6, num_levels=2, embed_dims=64, feedforward_channels=128,
        ego_motion=dict(preset='official_v1', rotate_center=center)).eval()
    transformer.load_state_dict(published_state_dict(manifest('modules')['transformer']))
    height, width = modules['encoder/bev_shape'].tolist()
    grid = BEVGrid(height, width, tuple(modules['encoder/pc_range'].tolist()))
    bev_embed = transformer.encode(
        [modules['transformer/feature_level0'], modules['transformer/feature_level1']],
        modules['transformer/bev_queries'], modules['transformer/bev_pos'][0].flatten(1).T,
        modules['encoder/lidar2img'][None], tuple(modules['encoder/img_shape'].tolist()),
        modules['transformer/can_bus'][None], modules['transformer/prev_bev'].transpose(0, 1), torch.tensor([True]),
        grid)
    torch.testing.assert_close(bev_embed, modules['transformer/bev_embed'], atol=1e-4, rtol=0)
    query_pos, query = modules['transformer/object_query_embed'][None].chunk(2, dim=-1)
    states, references = transformer.decode(bev_embed, query, query_pos, None, grid, None)
    torch.testing.assert_close(states, modules['transformer/decoder_states'].transpose(1, 2), atol=1e-4, rtol=0)
    torch.testing.assert_close(references[0], modules['transformer/init_reference'])
    torch.testing.assert_close(references[1:], modules['transformer/inter_references'])


@pytest.mark.parametrize('name', ['bevformer_tiny', 'bevformer_small', 'bevformer_base'])
def test_state_dict_is_the_published_one(name):
    with torch.device('meta'):
        state = build(name).state_dict()
    expected = {our_name(key): tuple(shape) for key, shape in manifest(name).items()}
    assert {key: tuple(value.shape) for key, value in state.items()} == expected


def assert_same_detections(result: InstanceData, reference: dict) -> None:
    """Equal detections in score order, where scores that tie to 1e-5 may swap places."""
    scores = torch.from_numpy(reference['scores'])
    torch.testing.assert_close(result.scores_3d, scores, atol=1e-5, rtol=0)
    boxes = boxes_to_old_convention(result.bboxes_3d.tensor)
    ours = torch.cat([boxes, result.labels_3d[:, None]], dim=-1)
    theirs = torch.cat([torch.from_numpy(reference['boxes']), torch.from_numpy(reference['labels'])[:, None]], dim=-1)
    turn = ours[:, None, 6] - theirs[None, :, 6]
    distance = (ours[:, None] - theirs[None]).abs()
    distance[..., 6] = torch.atan2(turn.sin(), turn.cos()).abs()
    tie = (scores[:, None] - scores[None]).abs() < 1e-5
    nearest = distance.amax(-1).masked_fill(~tie, torch.inf).min(dim=1).values
    assert nearest.max() < 1e-3


@pytest.mark.slow
@torch.no_grad()
def test_tiny_stream():
    model = build_published('bevformer_tiny').eval()
    images = load_reference_module('rig').images
    reference = np.load(REFERENCE / 'bevformer_tiny.rig.stream.npz')
    histories = [None]
    for frame in range(2):
        expected = {key.partition('.')[2]: reference[key] for key in reference if key.startswith(f'f{frame}.')}
        imgs = torch.from_numpy(images(frame, 480, 800))
        np.testing.assert_array_equal(imgs[:, :, ::37, ::41], expected['img_sample'])
        meta = dict(lidar2img=expected['lidar2img'], can_bus=expected['can_bus'], scene_token='rig',
                    timestamp=0.5 * frame)
        outputs, histories = model.stream_step(imgs[None], [meta], histories)
        # The published code turns the previous BEV in place: the file holds each BEV as the next frame left it.
        next_motion = torch.from_numpy(reference[f'f{frame + 1}.can_bus_delta'])[None]
        head = model.pts_bbox_head
        turned, _ = head.transformer.ego_alignment.align(outputs['bev_embed'], next_motion, head.grid)
        numbers = {'bev_embed_sample': turned[0, ::10], 'cls0': outputs['all_cls_scores'][0, 0],
                   'cls': outputs['all_cls_scores'][-1, 0]}
        for key, value in numbers.items():
            torch.testing.assert_close(value, torch.from_numpy(expected[key]), atol=1e-4, rtol=1e-5)
        for key, layer in (('bbox0', 0), ('bbox', -1)):
            boxes = boxes_to_our_rows(torch.from_numpy(expected[key]), -1)
            torch.testing.assert_close(outputs['all_bbox_preds'][layer, 0], boxes, **METRES)
        assert_same_detections(head.predict(outputs)[0], expected)


@pytest.mark.slow
def test_tiny_training_step():
    model = build_published('bevformer_tiny').train()
    model.grid_mask = None
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(module, torch.nn.MultiheadAttention):
            module.dropout = 0.0
    reference = np.load(REFERENCE / 'bevformer_tiny.rig.train.npz')
    rig = load_reference_module('rig')
    # The file holds what the network saw; a pose whose differences are these stands for the vehicle's own.
    can_bus = reference['can_bus'].copy()
    can_bus[:, :3] = can_bus[:, :3].cumsum(0)
    can_bus[:, 17] = np.rad2deg(can_bus[:, 16])
    metas = [dict(lidar2img=rig.lidar2img(0.5), can_bus=pose, scene_token='rig', timestamp=0.5 * frame)
             for frame, pose in enumerate(can_bus)]
    sample = Det3DDataSample(metainfo={**metas[-1], 'history': metas[:-1]})
    sample.gt_instances_3d = InstanceData(
        bboxes_3d=LiDARInstance3DBoxes(reference['gt_boxes_lwh'], box_dim=9),
        labels_3d=torch.from_numpy(reference['gt_labels']))
    imgs = torch.stack([torch.from_numpy(rig.images(frame, 480, 800)) for frame in range(3)])

    losses = model.loss(dict(imgs=imgs[None]), [sample])
    assert {f'loss.{key}' for key in losses} == {key for key in reference if key.startswith('loss.')}
    for key, value in losses.items():
        assert value.item() == pytest.approx(reference[f'loss.{key}'].item(), rel=1e-4)

    sum(losses.values()).backward()
    norms = json.loads((REFERENCE / 'bevformer_tiny.rig.train_grad_norms.json').read_text())
    ours = {name: p.grad.norm().item() for name, p in model.named_parameters() if p.grad is not None}
    assert ours == pytest.approx({our_name(key): norm for key, norm in norms.items()}, rel=1e-3, abs=1e-4)
