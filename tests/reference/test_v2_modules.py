"""Every case of v2/modules.npz: parts of the published BEVFormerV2."""

import numpy as np
import pytest
import torch
from mmdet3d.structures import LiDARInstance3DBoxes

from bevformer_plugin.datasets.transforms.bev_augmentation import bev_matrix, move_boxes
from bevformer_plugin.datasets.transforms.crop import cropped_projection
from bevformer_plugin.datasets.transforms.image_augmentation import mirrored_projection, resize_antialiased
from bevformer_plugin.datasets.transforms.resize import resized_projection
from bevformer_plugin.geometry import BEVGrid, boxes_from_old_convention, boxes_to_old_convention, transform_bev
from bevformer_plugin.layers import DetectionTransformerDecoderLayer
from bevformer_plugin.models import BEVFusion, Frame, SetCriterion3D
from tests.helpers.reference_files import box_rows, published_weights, v2_arrays, v2_manifest, v2_rig
from tests.reference.v2_frames import pose

RANGE = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)


def tensors_of(case: str) -> dict[str, torch.Tensor]:
    return v2_arrays('modules.npz', f'{case}/')


@pytest.mark.parametrize('case', ['fusion', 'fusion_down'])
def test_v2_fusion(case):
    expected = tensors_of(case)
    bevs = expected['bevs']  # Kx1xCxHxW
    frames, _, channels, height, width = bevs.shape
    fusion = BEVFusion(
        frames, channels, BEVGrid(height, width, RANGE), dict(type='SyncBN'), int(expected['inter_channels'])
    )
    weights = published_weights(v2_manifest('modules')[case])
    fusion.load_state_dict({name.replace('layer_norm', 'projection'): value for name, value in weights.items()})
    flat = bevs.flatten(3).transpose(2, 3).clone().requires_grad_()  # Kx1xQxC
    torch.testing.assert_close(fusion.eval()(list(flat)), expected['output'], atol=1e-4, rtol=0)

    output = fusion.train()(list(flat))
    torch.testing.assert_close(output, expected['output_train'], atol=1e-4, rtol=0)
    output.backward(expected['grad_output'])
    grad = flat.grad.transpose(2, 3).view_as(bevs)
    torch.testing.assert_close(grad, expected['grad_bevs_train'], atol=1e-3, rtol=1e-4)
    norms = {
        name.removeprefix('grad_norm_train/').replace('layer_norm', 'projection'): norm.item()
        for name, norm in expected.items()
        if name.startswith('grad_norm_train/')
    }
    assert {name: p.grad.norm().item() for name, p in fusion.named_parameters()} == pytest.approx(norms, rel=1e-3)
    for name, running in expected.items():
        if name.startswith('running_after_train/'):
            torch.testing.assert_close(fusion.state_dict()[name.partition('/')[2]], running)


def test_v2_bev_augmentation():
    expected = tensors_of('bda')
    height, width = expected['bev_shape'].tolist()
    grid = BEVGrid(height, width, RANGE)
    draws = [expected[name].tolist() for name in ('rot_angle', 'scale_ratio', 'flip_dx', 'flip_dy')]
    for index, (angle, scale, flip_x, flip_y) in enumerate(zip(*draws, strict=True)):
        matrix = torch.from_numpy(bev_matrix(angle, scale, flip_x, flip_y))
        inverse = torch.linalg.inv(matrix).float()
        torch.testing.assert_close(inverse, expected['bda_mat'][index, :2, :2], atol=1e-6, rtol=0)
        moved = transform_bev(expected['bev_in'], matrix[None], grid)
        torch.testing.assert_close(moved, expected['bev_out'][index], atol=1e-5, rtol=0)
        boxes = LiDARInstance3DBoxes(boxes_from_old_convention(expected['boxes_in']), box_dim=9)
        move_boxes(boxes, angle, scale, flip_x, flip_y)
        ours, theirs = boxes_to_old_convention(boxes.tensor), expected['boxes_out'][index]
        difference = ours - theirs
        difference[:, 6] = torch.atan2(difference[:, 6].sin(), difference[:, 6].cos())
        assert difference.abs().max() < 1e-4, index


def test_v2_alignment():
    """Cameras of other frames in the current LiDAR frame; the published motion is float32, see the README."""
    expected = tensors_of('ego')
    frames = expected['frames'].tolist()
    current = frames.index(0)
    lidar2ego = torch.from_numpy(pose(expected['lidar2ego_rotation'], expected['lidar2ego_translation']))
    unaligned = expected['cam2img'] @ expected['lidar2cam']
    torch.testing.assert_close(unaligned, expected['lidar2img_before'], atol=1e-6, rtol=0)
    ours = [
        Frame(
            name=str(offset),
            scene='rig',
            timestamp=0.5 * offset,
            lidar2img=unaligned[index],
            ego2global=torch.from_numpy(
                pose(expected['ego2global_rotation'][index], expected['ego2global_translation'][index])
            ),
            can_bus=torch.zeros(13),
            lidar2ego=lidar2ego,
        )
        for index, offset in enumerate(frames)
    ]
    for index, frame in enumerate(ours):
        aligned = frame.seen_from(ours[current]).lidar2img
        assert (aligned - expected['lidar2img'][index]).abs().max() < 0.2, frame.name
        motion = torch.linalg.solve(aligned, unaligned[index])
        published = expected['lidaradj2lidarcurr'][index].double()
        torch.testing.assert_close(motion, published.expand_as(motion), atol=2e-4, rtol=0)


def test_v2_group_attention():
    """Self-attention within groups of object queries, inside a decoder layer; the rest of the layer does not count."""
    expected = tensors_of('group_mha')
    groups = int(expected['groups'])
    weights = published_weights(v2_manifest('modules')['group_mha'])
    width = expected['query'].shape[-1]
    layer = DetectionTransformerDecoderLayer(width, 8, width, dropout=0.0)
    layer.self_attention.load_state_dict({name.removeprefix('attn.'): value for name, value in weights.items()})
    outputs = []
    layer.norms[0].register_forward_pre_hook(lambda _, inputs: outputs.append(inputs[0]))
    query = expected['query'].transpose(0, 1).clone().requires_grad_()  # BxMxC
    query_pos = expected['query_pos'].transpose(0, 1).clone().requires_grad_()
    bev = torch.zeros(len(query), 1, width)
    reference = torch.full((*query.shape[:2], 2), 0.5)

    layer(query, query_pos, bev, reference, torch.tensor([[1, 1]]), groups)
    output = outputs.pop().transpose(0, 1)
    torch.testing.assert_close(output, expected['output_train'], atol=1e-5, rtol=0)
    output.backward(expected['grad_output'])
    for name, ours in (('query', query.grad), ('query_pos', query_pos.grad)):
        torch.testing.assert_close(ours.transpose(0, 1), expected[f'grad_{name}'], atol=1e-4, rtol=1e-4)
    for name, parameter in layer.self_attention.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[f'grad_attn.{name}'], atol=1e-3, rtol=1e-4)

    size = query.shape[1] // groups
    layer(query[:, :size], query_pos[:, :size], bev, reference[:, :size], torch.tensor([[1, 1]]))
    first = outputs.pop().transpose(0, 1)
    torch.testing.assert_close(first, expected['output_eval_first_group'], atol=1e-5, rtol=0)


def criterion() -> SetCriterion3D:
    return SetCriterion3D(
        assigner=dict(
            type='HungarianAssigner3D',
            cls_cost=dict(type='mmdet.FocalLossCost', weight=2.0),
            reg_cost_weight=0.75,
            smooth_l1_beta=1.0,
        ),
        loss_cls=dict(type='mmdet.FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0),
        loss_bbox=dict(type='mmdet.SmoothL1Loss', beta=1.0, loss_weight=0.75),
        code_weights=[1.0] * 8 + [0.2] * 2,
    )


def test_v2_criterion():
    expected = tensors_of('criterion')
    groups = int(expected['groups'])
    scores = expected['all_cls_scores'].clone().requires_grad_()
    raw = expected['all_bbox_preds'].clone().requires_grad_()
    boxes = expected['gt_boxes_lwh'].clone()
    boxes[:, 2] += boxes[:, 5] / 2
    ours = criterion()
    losses = ours(scores, box_rows(raw), [expected['gt_labels']], [boxes], groups)
    theirs = {key.removeprefix('loss.'): value.item() for key, value in expected.items() if key.startswith('loss.')}
    assert {key: value.item() for key, value in losses.items()} == pytest.approx(theirs, rel=1e-5)
    sum(losses.values()).backward()
    torch.testing.assert_close(scores.grad, expected['grad_cls'], atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(raw.grad, expected['grad_bbox'], atol=1e-6, rtol=1e-4)
    for layer in range(len(scores)):
        for group, (cls, box) in enumerate(
            zip(scores[layer, 0].chunk(groups), box_rows(raw)[layer, 0].chunk(groups), strict=True)
        ):
            assigned = ours.assigner.assign(cls, box, expected['gt_labels'], boxes)
            assert torch.equal(assigned.gt_inds, expected['gt_inds'][group, layer]), (group, layer)


def test_v2_image_augmentation():
    """Published sizes and mirroring; ours has the true ratio of each axis, and mirrors the calibration."""
    expected = tensors_of('ida')
    photographs = [v2_rig().photograph(seed) for seed in expected['photograph_seeds'].tolist()]
    stored = photographs[0].shape[1::-1]
    before = (expected['cam2img_raw'] @ expected['lidar2cam']).numpy()
    cases = zip(expected['resize'].tolist(), expected['resize_dims'].tolist(), expected['flip'].tolist(), strict=True)
    for index, (ratio, size, flip) in enumerate(cases):
        left, top, right, bottom = expected['crop'][index].tolist()
        assert (left, right, bottom) == (0, *stored)
        cropped = (stored[0], stored[1] - top)
        for camera, photograph in enumerate(photographs):
            image = resize_antialiased(photograph[top:], tuple(size))
            image = image[:, ::-1] if flip else image
            sample = image.transpose(2, 0, 1)[:, ::37, ::41][:, :13, :31]
            np.testing.assert_array_equal(sample, expected['image_sample'][index, camera])
            exact = (round(stored[0] * ratio), size[1])
            projection = resized_projection(cropped_projection(before[camera], top), cropped, exact)
            np.testing.assert_allclose(projection, expected['lidar2img'][index, camera], atol=2e-3)
            mirrored = mirrored_projection(projection, exact[0])
            np.testing.assert_allclose(mirrored[0], exact[0] * projection[2] - projection[0])
            np.testing.assert_array_equal(mirrored[1:], projection[1:])
