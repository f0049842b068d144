"""The detection decoder: refinement, batches, where it looks."""

import pytest
import torch
from torch import nn

from bevformer_plugin.layers import DetectionTransformerDecoder
from tests.helpers.module_calls import record_calls

BEV_HW = (4, 6)


@pytest.fixture
def decoder(randomize):
    return randomize(DetectionTransformerDecoder(3, 16, num_heads=4, feedforward_channels=32))


@pytest.fixture
def branches(randomize):
    return randomize(nn.ModuleList(nn.Linear(16, 10) for _ in range(3)), seed=5)


@pytest.fixture
def inputs():
    """query, query_pos (2, 6, 16), bev_embed (2, 24, 16), reference points (2, 6, 3)."""
    generator = torch.Generator().manual_seed(1)
    query, query_pos = torch.randn(2, 2, 6, 16, generator=generator)
    return query, query_pos, torch.randn(2, 24, 16, generator=generator), torch.rand(2, 6, 3, generator=generator)


def test_points_are_refined_by_the_boxes_of_each_layer(decoder, branches, inputs):
    decoded = decoder(*inputs, BEV_HW, branches)
    assert decoded.states.shape == (3, 2, 6, 16)
    assert decoded.references.shape == (4, 2, 6, 3)
    assert torch.equal(decoded.references[0], inputs[3])
    for layer in range(3):
        torch.testing.assert_close(decoded.boxes[layer], branches[layer](decoded.states[layer]))
        before = decoded.references[layer]
        logit = torch.log(before / (1 - before))
        expected = torch.sigmoid(logit + decoded.boxes[layer][..., [0, 1, 4]])
        torch.testing.assert_close(decoded.references[layer + 1], expected, atol=1e-5, rtol=1e-5)


def test_each_branch_runs_once(decoder, branches, inputs):
    calls = [record_calls(branch) for branch in branches]
    decoder(*inputs, BEV_HW, branches)
    assert [len(of_branch) for of_branch in calls] == [1, 1, 1]


def test_points_are_detached_between_layers(decoder, branches, inputs):
    inputs[3].requires_grad_()
    decoded = decoder(*inputs, BEV_HW, branches)
    references = decoded.references
    assert torch.equal(
        torch.autograd.grad(references[0].sum(), inputs[3], retain_graph=True)[0], torch.ones_like(inputs[3])
    )
    assert torch.autograd.grad(references[1:].sum(), inputs[3], retain_graph=True, allow_unused=True)[0].sum() == 0
    decoded.states.sum().backward(retain_graph=True)
    assert all(parameter.grad is None for parameter in branches.parameters())
    assert inputs[3].grad[..., :2].abs().max() > 0  # the first layer's sampling, which trains the first points
    assert inputs[3].grad[..., 2].abs().max() == 0
    decoded.boxes.sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in branches.parameters())


def test_samples_are_independent(decoder, branches, inputs):
    together = decoder(*inputs, BEV_HW, branches)
    for sample in range(2):
        alone = decoder(*(x[sample : sample + 1] for x in inputs), BEV_HW, branches)
        for name in ('states', 'boxes', 'references'):
            of_sample = getattr(together, name)[:, sample : sample + 1]
            torch.testing.assert_close(of_sample, getattr(alone, name), atol=1e-5, rtol=1e-5)


def test_looks_at_the_bev_around_its_points(decoder, branches, inputs):
    """A change of the BEV far from all points reaches no query; one under a point reaches that query."""
    query, query_pos, bev_embed, _ = inputs
    with torch.no_grad():
        for layer in decoder.layers:
            layer.cross_attention.init_weights()
            layer.cross_attention.sampling_offsets.bias.zero_()
            layer.self_attention.out_proj.weight.zero_()  # queries tell each other nothing
        for parameter in branches.parameters():
            parameter.zero_()  # the points stay
    points = torch.tensor([0.25, 0.625, 0.5]).expand(2, 6, 3).clone()  # cell (2, 1) of 4 x 6
    points[:, 3, :2] = torch.tensor([0.75, 0.125])  # cell (0, 4)
    before = decoder(query, query_pos, bev_embed, points, BEV_HW, branches).states
    changed = bev_embed.clone()
    changed[:, 0 * 6 + 4] += 1
    after = decoder(query, query_pos, changed, points, BEV_HW, branches).states
    moved = (after - before).abs().amax(dim=(0, 1, 3))
    assert moved[3] > 0.01
    assert moved[[0, 1, 2, 4, 5]].max() < 1e-4


def test_what_does_not_fit_is_refused(decoder, branches, inputs):
    with pytest.raises(ValueError, match='3 decoder layers need as many reg_branches, got 2'):
        decoder(*inputs, BEV_HW, branches[:2])
    with pytest.raises(ValueError, match='24 positions'):
        decoder(*inputs, (5, 6), branches)
