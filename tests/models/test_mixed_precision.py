"""Under bf16 autocast places are float32's, bit for bit, and losses are near float32's."""

from contextlib import contextmanager

import pytest
import torch

import bevformer_plugin.layers.deformable_attention as deformable_attention
import bevformer_plugin.models.bev.bev_encoder as transformer
from bevformer_plugin.layers import DeformableAttentionCore
from bevformer_plugin.models import CameraFeatures, PerspectiveSupervision
from tests.helpers.module_calls import record_calls
from tests.models.shrunk_configs import SHRUNK, assert_same_gradients, build_shrunk, gradients
from tests.models.small_detector import batch

BF16 = torch.finfo(torch.bfloat16).eps


@contextmanager
def bf16():
    with torch.autocast('cpu', dtype=torch.bfloat16):
        yield


@pytest.mark.parametrize('name', list(SHRUNK))
def test_losses_are_near_those_of_float32(make_sample, name):
    inputs, samples = batch(make_sample(range(2), 'a'), make_sample(range(2), 'b'))
    model = build_shrunk(name)
    exact = model.loss(inputs, samples)
    with bf16():
        mixed = model.loss(inputs, samples)
    assert mixed.keys() == exact.keys()
    assert any(not torch.equal(mixed[loss], exact[loss]) for loss in exact)
    for loss, value in exact.items():
        assert mixed[loss].dtype == torch.float32
        assert mixed[loss].item() == pytest.approx(value.item(), rel=0.03), loss
    wanted = gradients(model, sum(exact.values()))
    found = gradients(model, sum(mixed.values()))
    flat_found, flat_wanted = (torch.cat([g.flatten() for g in grads.values()]) for grads in (found, wanted))
    assert torch.cosine_similarity(flat_found, flat_wanted, dim=0) > 0.9
    with pytest.raises(AssertionError):
        assert_same_gradients(found, wanted)


def test_offsets_are_float32s_for_the_same_query():
    torch.manual_seed(0)
    core = DeformableAttentionCore(32, 4, num_levels=2, num_points=3)
    torch.nn.init.normal_(core.sampling_offsets.weight)
    query = torch.randn(2, 7, 32)
    offsets, weights = core.predict_sampling(query)
    with bf16():
        mixed_offsets, mixed_weights = core.predict_sampling(query)
    assert torch.equal(mixed_offsets, offsets)
    assert 0 < (mixed_weights - weights).abs().max() < 4 * BF16


@pytest.mark.parametrize('name', list(SHRUNK))
def test_places_and_boxes_are_never_rounded_to_bf16(make_sample, monkeypatch, name):
    kinds, seen = set(), []

    def keep(sample):
        def keeping(value, shapes, locations, *rest):
            kinds.add(locations.dtype)
            return sample(value, shapes, locations, *rest)

        return keeping

    def keep_projected(*arguments, project=transformer.project_to_cameras):
        seen.append(project(*arguments))
        return seen[-1]

    for function in ('multi_scale_deformable_attention', 'ragged_deformable_attention'):
        monkeypatch.setattr(deformable_attention, function, keep(getattr(deformable_attention, function)))
    monkeypatch.setattr(transformer, 'project_to_cameras', keep_projected)
    imgs, sample = make_sample(range(1))
    for mixed in (False, True):
        model = build_shrunk(name).eval()
        with torch.no_grad(), torch.autocast('cpu', dtype=torch.bfloat16, enabled=mixed):
            outputs = model.stream_step(imgs, [sample.metainfo], [None])[0]
    assert kinds == {torch.float32}
    for exact, found in zip(*seen, strict=True):
        assert torch.equal(found, exact)
    boxes = outputs['all_bbox_preds']
    assert boxes.dtype == torch.float32 and not torch.equal(boxes.bfloat16().float(), boxes)


def test_targets_in_the_cameras_views_are_those_of_float32(make_sample):
    sample = make_sample(range(1), num_objects=20)[1]
    truth = sample.gt_instances_3d
    supervision = PerspectiveSupervision(8, 3, dict(type='mmdet.GaussianFocalLoss'), dict(type='mmdet.L1Loss'))
    calls = record_calls(supervision.loss_values)
    lidar2img = torch.as_tensor(sample.metainfo['lidar2img'], dtype=torch.float32)[None]
    for mixed in (False, True):
        with torch.autocast('cpu', dtype=torch.bfloat16, enabled=mixed):
            features = CameraFeatures([0], [torch.randn(1, 6, 8, 16, 24)], (64, 96))
            supervision.loss([features], lidar2img, [truth.bboxes_3d], [truth.labels_3d])
    exact, mixed = (call.inputs for call in calls)
    assert exact['weight'].sum() > 0
    for name in ('target', 'weight'):
        assert torch.equal(mixed[name], exact[name])
