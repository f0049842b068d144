"""Detectors on a device against the same detectors on the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from bevformer_plugin.models import BEVFormer
from tests.gpu.training_steps import MODELS_OF, build, gradients_of, losses_of, optimizer_of, stream, training_step

# What half precision may move the losses by, as a share of them: of those that no match decides about, and of the sum.
HALF = {torch.bfloat16: (0.03, 0.1), torch.float16: (0.01, 0.05)}
ON_CPU = torch.device('cpu')


@pytest.mark.parametrize('name', MODELS_OF)
def test_a_training_step_is_that_of_the_cpu(device, small_configs, training_batches, name):
    cfg, batch = small_configs[name], training_batches[name]
    steps = []
    for place in (ON_CPU, device):
        detector = build(cfg).to(place)
        optimizer = optimizer_of(detector, cfg)
        # The second step sees what the first has made of the weights.
        steps.append([training_step(detector, optimizer, batch) for _ in range(2)])
    for expected, found, tolerance in zip(*steps, (1e-4, 1e-2), strict=True):
        assert {loss: float(value) for loss, value in found.items()} == pytest.approx(
            {loss: float(value) for loss, value in expected.items()}, rel=tolerance, abs=1e-5
        )


@pytest.mark.parametrize('dtype', HALF)
def test_losses_in_half_precision_are_near_those_of_float32(device, small_configs, training_batches, dtype):
    if device.type == 'cpu' and dtype == torch.float16:
        pytest.skip('float16 is for GPUs')
    detector = build(small_configs['nano']).to(device)
    exact = losses_of(detector, training_batches['nano'])
    with torch.autocast(device.type, dtype):
        found = losses_of(detector, training_batches['nano'])
    unmatched, total = HALF[dtype]
    for loss, value in exact.items():
        assert found[loss].dtype == torch.float32, loss
        if loss.startswith(('proposal', 'perspective')):
            assert float(found[loss]) == pytest.approx(float(value), rel=unmatched), loss
    assert float(sum(found.values())) == pytest.approx(float(sum(exact.values())), rel=total)


@pytest.mark.parametrize('name', MODELS_OF)
def test_a_scene_is_predicted_as_on_the_cpu(device, small_configs, scenes, name):
    expected = stream(build(small_configs[name]), scenes[name])
    found = stream(build(small_configs[name]).to(device), scenes[name])
    for ours, theirs in zip(found, expected, strict=True):
        ours, theirs = ours.pred_instances_3d.cpu(), theirs.pred_instances_3d
        torch.testing.assert_close(ours.scores_3d, theirs.scores_3d, atol=3e-4, rtol=0)
        distance = torch.cdist(ours.bboxes_3d.gravity_center.double(), theirs.bboxes_3d.gravity_center.double())
        distance[ours.labels_3d[:, None] != theirs.labels_3d] = torch.inf
        # The last places are for those whose scores tie.
        assert (distance.min(1).values < 1e-3).float().mean() > 0.95


def test_checkpointed_activations_give_the_same_gradients(device, small_configs, training_batches):
    kept = build(small_configs['nano']).to(device)
    checkpointed = build(small_configs['nano'], activation_checkpointing=('img_backbone', 'encoder')).to(device)
    expected = gradients_of(kept, training_batches['nano'])
    found = gradients_of(checkpointed, training_batches['nano'])
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        scale = gradient.abs().max().clamp(min=1e-6)
        torch.testing.assert_close(found[name] / scale, gradient / scale, atol=1e-3, rtol=0)


@contextmanager
def waiting_is_an_error(device: torch.device) -> Iterator[None]:
    """Raise where the CPU waits for a GPU within the block."""
    if device.type != 'cuda':
        yield
        return
    torch.cuda.set_sync_debug_mode('error')
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode('default')


@pytest.mark.parametrize('name', ['nano', 'nano with a map'])
def test_encoder_and_decoder_do_not_wait_for_the_device(device, small_configs, scenes, name):
    detector = build(small_configs[name]).to(device).eval()
    _encode_and_decode(detector, scenes[name], ON_CPU)  # kernels are compiled, and what they keep is copied
    _encode_and_decode(detector, scenes[name], device)


@torch.no_grad()
def _encode_and_decode(detector: BEVFormer, scene: list[dict], watched: torch.device) -> None:
    """Run both over a scene; it is an error if they wait for the watched device."""
    history = None
    for item in scene:
        data = detector.data_preprocessor({'inputs': {'img': [item['inputs']['img']]}, 'data_samples': None})
        imgs, frames = data['inputs']['imgs'][:, 0], detector.frames_of([item['data_samples'].metainfo])
        hits = detector.bev_encoder.hits(frames, (imgs.shape[-2], imgs.shape[-1]))
        with waiting_is_an_error(watched):
            encoded = detector.encode(imgs, frames, [history], hits)
            outputs = detector.pts_bbox_head(encoded.bev_embed)
        (history,) = encoded.histories()
        assert history is not None and outputs.cls_scores.isfinite().all()
