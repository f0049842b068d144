"""The matcher's least cost, and which of several assignments of that cost it takes."""

import pytest
import torch
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from bevformer_plugin.geometry import normalize_boxes
from bevformer_plugin.models import HungarianAssigner3D

SEEDS = range(5)


@pytest.fixture
def assigner() -> HungarianAssigner3D:
    return HungarianAssigner3D(dict(type='mmdet.FocalLossCost', weight=2.0), reg_cost_weight=0.25)


def boxes_ahead(count: int, generator: torch.Generator) -> Tensor:
    """(count, 9) metric boxes that are larger than 0 in all of the first eight network values."""
    boxes = torch.rand(count, 9, generator=generator)
    return boxes * torch.tensor([40.0, 40, 2, 2, 2, 2, 1, 1, 1]) + torch.tensor([5.0, 5, 0, 2, 2, 2, 0.3, 0, 0])


def world(seed: int, behind: bool, extent: float = 40.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores and boxes of 60 queries, labels and boxes of 20 objects; ``behind``: every query below every object."""
    generator = torch.Generator().manual_seed(seed)
    boxes = boxes_ahead(20, generator)
    labels = torch.randint(0, 3, (20,), generator=generator)
    scores = torch.randn(60, 3, generator=generator)
    queries = torch.rand(60, 10, generator=generator) * torch.tensor([extent] * 2 + [1.0] * 8)
    return scores, -queries if behind else queries, labels, boxes


def published_cost(assigner: HungarianAssigner3D, scores: Tensor, queries: Tensor, labels: Tensor, boxes: Tensor):
    distance = torch.cdist(queries[:, :8], normalize_boxes(boxes)[:, :8], p=1)
    return assigner.cls_cost(InstanceData(scores=scores), InstanceData(labels=labels)) + 0.25 * distance


@pytest.mark.parametrize('extent', [0.01, 1.0, 40.0])
@pytest.mark.parametrize('seed', SEEDS)
def test_round_off_does_not_choose_between_assignments_of_equal_cost(assigner, seed, extent):
    scores, queries, labels, boxes = world(seed, behind=True, extent=extent)
    expected = assigner.assign(scores, queries, labels, boxes).gt_inds
    assert (expected > 0).sum() == 20
    for noise in range(5):
        generator = torch.Generator().manual_seed(noise)
        rounded = [
            values * (1 + 1e-6 * torch.randn(values.shape, generator=generator)) for values in (scores, queries, boxes)
        ]
        found = assigner.assign(rounded[0], rounded[1], labels, rounded[2]).gt_inds
        assert torch.equal(found, expected), noise


@pytest.mark.parametrize('seed', SEEDS)
def test_without_ties_it_is_the_published_assignment(assigner, seed):
    scores, queries, labels, boxes = world(seed, behind=False)
    queries[:, 6:8] = torch.linspace(-1, 2, 60)[:, None]  # between the objects' values as well
    rows, columns = linear_sum_assignment(published_cost(assigner, scores, queries, labels, boxes))
    expected = torch.zeros(60, dtype=torch.long)
    expected[rows] = torch.as_tensor(columns) + 1
    found = assigner.assign(scores, queries, labels, boxes)
    assert torch.equal(found.gt_inds, expected)
    assert found.labels[rows].tolist() == labels[columns].tolist()


@pytest.mark.parametrize('seed', SEEDS)
def test_breaking_a_tie_costs_nothing(assigner, seed):
    case = world(seed, behind=True)
    cost = published_cost(assigner, *case).double()
    least = cost[linear_sum_assignment(cost)].sum()
    gt_inds = assigner.assign(*case).gt_inds
    queries = gt_inds.nonzero().squeeze(1)
    assert cost[queries, gt_inds[queries] - 1].sum().item() == pytest.approx(least.item(), rel=1e-6)


@pytest.mark.parametrize('order', [[0, 1], [1, 0]])
def test_of_equal_costs_the_near_goes_to_the_near(assigner, order):
    """Swapped, the L1 distances are 33 + 7 instead of 20 + 20, and their squares sum to 1138 instead of 800."""
    boxes = torch.tensor([[17.0, 0, 0, 4, 2, 1.5, 0, 0, 0], [30.0, 0, 0, 4, 2, 1.5, 0, 9, 9]])
    queries = normalize_boxes(boxes)
    queries[:, 0] = torch.tensor([-3.0, 10.0])
    found = assigner.assign(torch.zeros(2, 3), queries[order], torch.tensor([1, 1]), boxes)
    assert found.gt_inds.tolist() == [place + 1 for place in order]
