"""Under bf16 autocast places are float32's, bit for bit, and losses are near float32's."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from mmdet.models.task_modules.assigners import AssignResult
from torch import nn

import bevformer_plugin.layers.deformable_attention as deformable_attention
import bevformer_plugin.models.bev.bev_encoder as bev_encoder
from bevformer_plugin.geometry import BEVGrid
from bevformer_plugin.layers import DeformableAttentionCore
from bevformer_plugin.models import CameraFeatures, EncodedFrames, Frame, PerspectiveSupervision, SetCriterion3D
from tests.helpers.module_calls import record_calls
from tests.models.shrunk_configs import SHRUNK, assert_same_gradients, build_shrunk, gradients
from tests.models.small_detector import RANGE, batch, raw_outputs, step

BF16 = torch.finfo(torch.bfloat16).eps


@contextmanager
def bf16():
    with torch.autocast('cpu', dtype=torch.bfloat16):
        yield


def match_as_recorded(criterion: SetCriterion3D, matches: list[AssignResult]) -> None:
    """Let a criterion take the recorded matches, one call after the other, in place of its own."""
    recorded = iter(matches)
    criterion.assigner.assign = lambda *_: next(recorded)


def record_matches(criterion: SetCriterion3D) -> list[AssignResult]:
    """Return a list to which every match of a criterion is added."""
    matches: list[AssignResult] = []
    assign = criterion.assigner.assign

    def keep(*inputs: torch.Tensor) -> AssignResult:
        matches.append(assign(*inputs))
        return matches[-1]

    criterion.assigner.assign = keep
    return matches


def errors_and_similarity(
    model: nn.Module, inputs: dict, samples: list, same_matches: bool
) -> tuple[dict[str, float], float]:
    """Relative errors of the losses under bf16 and of their sum, and the cosine between gradients and float32's."""
    criterion = model.heads['detection'].criterion
    matches = record_matches(criterion)
    exact = model.loss(inputs, samples)
    if same_matches:
        match_as_recorded(criterion, matches)
    with bf16():
        mixed = model.loss(inputs, samples)
    assert mixed.keys() == exact.keys()
    assert {loss.dtype for loss in mixed.values()} == {torch.float32}
    assert any(not torch.equal(mixed[loss], exact[loss]) for loss in exact)
    wanted = gradients(model, sum(exact.values()))
    found = gradients(model, sum(mixed.values()))
    with pytest.raises(AssertionError):
        assert_same_gradients(found, wanted)
    flat_found, flat_wanted = (torch.cat([g.flatten() for g in grads.values()]) for grads in (found, wanted))
    pairs = {**{loss: (mixed[loss], exact[loss]) for loss in exact}, 'sum': (sum(mixed.values()), sum(exact.values()))}
    errors = {name: (of_bf16 / of_float32 - 1).abs().item() for name, (of_bf16, of_float32) in pairs.items()}
    return errors, torch.cosine_similarity(flat_found, flat_wanted, dim=0).item()


@pytest.mark.parametrize('name', [name for name in SHRUNK if name != 'bevformer_nano'])
def test_losses_and_gradients_are_near_those_of_float32(make_sample, name):
    """With the same matches: among random weights, rounding may let another query be the nearest."""
    inputs, samples = batch(make_sample(range(2), 'a'), make_sample(range(2), 'b'))
    for seed in range(2):
        errors, similarity = errors_and_similarity(build_shrunk(name, seed=seed), inputs, samples, same_matches=True)
        assert max(errors.values()) < 0.03 and similarity > 0.9, (seed, errors, similarity)


def test_losses_and_gradients_of_proposals_are_near_those_of_float32(make_sample):
    """For most weights: which cells come first, and are matched, is another choice that rounding may change."""
    inputs, samples = batch(make_sample(range(2), 'a'), make_sample(range(2), 'b'))
    changes = {'model.heads.detection.queries.num_query': 120}  # all cells
    found = [
        errors_and_similarity(build_shrunk('bevformer_nano', changes=changes, seed=seed), inputs, samples, False)
        for seed in range(3)
    ]
    for errors, _ in found:  # what no match decides about
        assert max(error for loss, error in errors.items() if loss.startswith(('proposal', 'perspective'))) < 0.03, (
            found
        )
    assert np.median([errors['sum'] for errors, _ in found]) < 0.03, found
    assert np.median([max(errors.values()) for errors, _ in found]) < 0.1, found
    assert np.median([similarity for _, similarity in found]) > 0.9, found


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

    def keep_projected(*arguments, project=bev_encoder.project_to_cameras):
        seen.append(project(*arguments))
        return seen[-1]

    for function in ('multi_scale_deformable_attention', 'ragged_deformable_attention'):
        monkeypatch.setattr(deformable_attention, function, keep(getattr(deformable_attention, function)))
    monkeypatch.setattr(bev_encoder, 'project_to_cameras', keep_projected)
    imgs, sample = make_sample(range(1))
    for mixed in (False, True):
        model = build_shrunk(name).eval()
        with torch.no_grad(), torch.autocast('cpu', dtype=torch.bfloat16, enabled=mixed):
            outputs = raw_outputs(model, step(model, imgs, [sample.metainfo], [None])[0])
    assert kinds == {torch.float32}
    for exact, found in zip(*seen, strict=True):
        assert torch.equal(found, exact)
    boxes = outputs['bbox_preds']
    assert boxes.dtype == torch.float32 and not torch.equal(boxes.bfloat16().float(), boxes)


def test_targets_in_the_cameras_views_are_those_of_float32(make_sample):
    sample = make_sample(range(1), num_objects=20)[1]
    grid = BEVGrid(8, 10, RANGE)
    supervision = PerspectiveSupervision(
        3, dict(type='mmdet.GaussianFocalLoss'), dict(type='mmdet.L1Loss'), embed_dims=8, grid=grid
    )
    calls = record_calls(supervision.loss_values)
    frame = Frame.from_meta(sample.metainfo, num_cameras=6)
    for mixed in (False, True):
        with torch.autocast('cpu', dtype=torch.bfloat16, enabled=mixed):
            features = CameraFeatures([0], [torch.randn(1, 6, 8, 16, 24)], (64, 96))
            supervision.loss(EncodedFrames(torch.zeros(1, 80, 8), [features], [frame]), [sample])
    exact, mixed = (call.inputs for call in calls)
    assert exact['weight'].sum() > 0
    for name in ('target', 'weight'):
        assert torch.equal(mixed[name], exact[name])
