"""Stages that are computed twice give the same gradients, statistics and random numbers as stages kept in memory."""

import pytest
import torch

from tests.models.shrunk_configs import build_shrunk
from tests.models.small_detector import batch

PARTS = ('img_backbone', 'encoder')


def step(model, inputs, samples):
    torch.manual_seed(3)
    losses = model.loss(inputs, samples)
    sum(value for name, value in losses.items()).backward()
    return (
        {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad},
        dict(model.named_buffers()),
        torch.get_rng_state(),
    )


@pytest.mark.parametrize('parts', [('img_backbone',), ('encoder',), PARTS])
@pytest.mark.parametrize('frames', [1, 3])
def test_gradients_statistics_and_random_numbers_are_the_same(make_sample, parts, frames):
    inputs, samples = batch(make_sample(range(frames), 'a'), make_sample(range(frames), 'b'))
    changes = {'model.img_backbone.norm_eval': False, 'model.bev_encoder.dropout': 0.1}
    kept, twice = (
        build_shrunk('bevformer_nano', changes={**changes, 'model.activation_checkpointing': checkpointed})
        for checkpointed in ((), parts)
    )
    calls = []
    for name in parts:
        twice.stages()[name][0].register_forward_pre_hook(lambda *_: calls.append('called'))
        for stage in twice.stages()[name]:
            inner = next(module for module in stage.modules() if not list(module.children()))
            inner.register_forward_pre_hook(lambda *_, name=name: calls.append(name))
    ours, theirs = step(twice, inputs, samples), step(kept, inputs, samples)
    for name in parts:  # history is run once, without gradient; the current frame twice
        assert calls.count(name) == len(twice.stages()[name]) * (frames + 1)
    assert ours[0].keys() == theirs[0].keys()
    for first, second in zip(ours[:2], theirs[:2], strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert torch.equal(ours[2], theirs[2])


def kept_bytes(model, inputs, samples):
    """Bytes that the forward pass of a training step keeps for the backward pass, parameters left out."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        losses = model.loss(inputs, samples)
    assert losses
    return sum(kept.values())


def test_less_is_kept_for_the_backward_pass(make_sample):
    inputs, samples = batch(make_sample(range(2), 'a'))
    kept = {
        parts: kept_bytes(
            build_shrunk('bevformer_nano', changes={'model.activation_checkpointing': parts}), inputs, samples
        )
        for parts in ((), *((part,) for part in PARTS), PARTS)
    }
    saved = {parts: kept[()] - number for parts, number in kept.items()}
    assert min(saved[part,] for part in PARTS) > 0.1 * kept[()]
    assert saved[PARTS] == pytest.approx(sum(saved[part,] for part in PARTS), rel=0.01)


def test_stages_are_the_backbones_and_the_encoders():
    stages = build_shrunk('bevformer_tiny').stages()
    assert {name: len(found) for name, found in stages.items()} == {'img_backbone': 4, 'encoder': 3}


def test_another_part_is_refused(build_detector):
    with pytest.raises(ValueError, match=r"takes any of \['encoder', 'img_backbone'\], got 'decoder'"):
        build_detector(activation_checkpointing=('decoder',))
