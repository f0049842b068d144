"""The BEV encoder: batches, history, cameras, shapes."""

from dataclasses import replace

import pytest
import torch

from bevformer_plugin.layers import BEVFormerEncoder
from tests.helpers.module_calls import record_calls


@pytest.fixture
def encoder(randomize):
    return randomize(
        BEVFormerEncoder(
            2,
            16,
            num_heads=4,
            feedforward_channels=32,
            num_levels=2,
            spatial_cross_attention=dict(type='SpatialCrossAttention'),
        )
    )


def gradients(encoder: torch.nn.Module, output: torch.Tensor) -> dict[str, torch.Tensor]:
    """Gradients of a loss that weighs every output value differently."""
    encoder.zero_grad()
    (output * torch.linspace(-1, 1, output[0].numel()).view_as(output[0])).sum().backward()
    return {name: parameter.grad.clone() for name, parameter in encoder.named_parameters()}


@pytest.mark.parametrize('has_history', [(True, True), (True, False), (False, True)])
def test_batch_of_two_equals_two_batches_of_one(make_scene, encoder, has_history):
    scene = make_scene()
    scene.history = replace(scene.history, exists=torch.tensor(has_history))
    together = scene.encode(encoder)
    expected = gradients(encoder, together)
    alone = [scene.one(index) for index in range(2)]
    outputs = [one.encode(encoder) for one in alone]
    torch.testing.assert_close(together, torch.cat(outputs), atol=1e-5, rtol=1e-5)
    summed = [gradients(encoder, output) for output in outputs]
    for name, gradient in expected.items():
        torch.testing.assert_close(gradient, summed[0][name] + summed[1][name], atol=1e-4, rtol=1e-4)


def test_without_history_motion_and_previous_bev_do_not_matter(make_scene, encoder):
    scene = make_scene()
    scene.history = replace(scene.history, exists=torch.tensor([False, True]))
    output = scene.encode(encoder)
    moved = replace(scene.history, bev_embed=scene.history.bev_embed + 1, shift=scene.history.shift + 0.1)
    other = scene.encode(encoder, history=moved)
    assert torch.equal(output[0], other[0])
    assert (output[1] - other[1]).abs().max() > 0.01


def test_the_sign_of_the_shift(make_scene, encoder):
    """TSA reads the previous BEV ahead of the cell when the vehicle drove on."""
    scene = make_scene(batch=1)
    calls = record_calls(encoder.layers[0])
    scene.encode(encoder, history=replace(scene.history, shift=torch.tensor([[0.25, 0.125]])))
    previous, current = calls[0].inputs['tsa_reference_points'][0]
    torch.testing.assert_close(previous - current, torch.tensor([0.25, 0.125]).expand(63, 2))


def test_current_slot_holds_what_entered_the_encoder(make_scene, encoder):
    scene = make_scene()
    scene.history = replace(scene.history, exists=torch.tensor([True, False]))
    calls = [record_calls(layer) for layer in encoder.layers]
    scene.encode(encoder)
    for (call,) in calls:
        query, values = call.inputs['query'], call.inputs['tsa_values']
        assert torch.equal(values[0], torch.stack([scene.history.bev_embed[0], scene.bev_query[0]]))
        assert torch.equal(values[1], torch.stack([query[1], query[1]]))
    assert not torch.equal(calls[1][0].inputs['query'], scene.bev_query)


@pytest.mark.parametrize('cameras', [1, 5, 7])
def test_any_number_of_cameras(make_scene, encoder, cameras):
    scene = make_scene(cameras=cameras)
    for level in scene.features:
        level.requires_grad_()
    output = scene.encode(encoder)
    assert output.shape == (2, 63, 16)
    output.square().sum().backward()
    for level in scene.features:
        assert (level.grad.flatten(2).abs().amax(-1) > 0).all()  # every camera of every sample is looked at


def test_trains_under_autocast(make_scene, encoder):
    scene = make_scene()
    expected = scene.encode(encoder)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        output = scene.encode(encoder)
    assert (output - expected).abs().mean() < 0.05
    output.float().square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in encoder.parameters())


def test_what_does_not_fit_is_refused(make_scene, encoder):
    scene, five = make_scene(), make_scene(cameras=5)
    with pytest.raises(ValueError, match='built for 2 feature levels, got 1'):
        scene.encode(encoder, features=scene.features[:1])
    with pytest.raises(ValueError, match='60 BEV queries do not fill a 7 x 9 grid'):
        scene.encode(encoder, bev_query=scene.bev_query[:, :60])
    with pytest.raises(ValueError, match=r'previous BEVs have shape \(1, 63, 16\), the BEV queries \(2, 63, 16\)'):
        scene.encode(encoder, history=scene.one(0).history)
    with pytest.raises(ValueError, match=r'\(2, 6, 63, 4\).* \(2, 5, 63, 4\)'):
        scene.encode(encoder, features=five.features)
