"""A second task is one entry in the detector's heads."""

from collections.abc import Mapping, Sequence

import pytest
import torch
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from mmengine.structures import PixelData
from torch import Tensor, nn

from bevformer_plugin.geometry import BEVGrid
from bevformer_plugin.models import BEVHead, EncodedFrames
from tests.models.small_detector import batch, detector_config


@MODELS.register_module()
class ObjectsPerCell(BEVHead):
    """Counts the objects whose centres lie in each cell: a task of a few lines."""

    predicts = ('pred_objects_per_cell',)

    def __init__(self, embed_dims: int, grid: BEVGrid, loss_name: str = 'loss_count') -> None:
        super().__init__(embed_dims, grid)
        self.loss_name = loss_name
        self.count = nn.Linear(embed_dims, 1)

    def loss(self, encoded: EncodedFrames, samples: Sequence[Det3DDataSample]) -> dict[str, Tensor]:
        counts = self.count(encoded.bev_embed).flatten(1).sum(1)
        truth = counts.new_tensor([len(sample.gt_instances_3d) for sample in samples])
        return {self.loss_name: (counts - truth).square().mean()}

    def predict(self, encoded: EncodedFrames) -> Mapping[str, Sequence[PixelData]]:
        shape = 1, self.grid.bev_h, self.grid.bev_w
        maps = self.count(encoded.bev_embed).view(-1, *shape)
        return {'pred_objects_per_cell': [PixelData(data=count) for count in maps]}


@MODELS.register_module()
class NoHead(nn.Module):
    """Takes what a head is given, and has nothing of one."""

    def __init__(self, embed_dims: int, grid: BEVGrid) -> None:
        super().__init__()


def two_heads(**count: object) -> dict:
    """Heads of a config: detection, and the count."""
    return dict(detection=detector_config()['heads']['detection'], count=dict(type='ObjectsPerCell', **count))


def test_a_second_head_is_trained_beside_the_first(build_detector, make_sample):
    model = build_detector(heads=two_heads()).train()
    inputs, samples = batch(make_sample(range(2), num_objects=5))
    losses = model(inputs, samples, mode='loss')
    alone = build_detector()
    alone.load_state_dict({name: value for name, value in model.state_dict().items() if 'heads.count' not in name})
    expected = alone.train()(inputs, samples, mode='loss')
    assert losses.keys() == expected.keys() | {'loss_count'}
    for name, value in expected.items():
        assert torch.equal(losses[name], value), name
    losses['loss_count'].backward()
    reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert 'heads.count.count.weight' in reached and 'img_backbone.conv1.weight' in reached
    assert not any(name.startswith('heads.detection') for name in reached)


@torch.no_grad()
def test_a_second_head_predicts_beside_the_first(build_detector, make_sample):
    model = build_detector(heads=two_heads()).eval()
    inputs, samples = batch(make_sample(range(1), 'a'), make_sample(range(1), 'b'))
    results = model(inputs, samples, mode='predict')
    for result in results:
        assert len(result.pred_instances_3d.scores_3d) > 0
        assert result.pred_objects_per_cell.data.shape == (1, 8, 10)
    first, second = (result.pred_objects_per_cell.data for result in results)
    assert not torch.equal(first, second)


def test_a_head_alone_needs_no_detection(build_detector, make_sample):
    model = build_detector(heads=dict(count=dict(type='ObjectsPerCell'))).train()
    assert set(model(*batch(make_sample(range(2))), mode='loss')) == {'loss_count'}


def test_none_leaves_an_inherited_head_out(build_detector):
    model = build_detector(heads={**two_heads(), 'count': None})
    assert list(model.heads) == ['detection']


def test_losses_of_one_name_are_refused(build_detector, make_sample):
    model = build_detector(heads=two_heads(loss_name='loss_cls')).train()
    with pytest.raises(ValueError, match=r'heads\.count and a head before it both have a loss named loss_cls'):
        model(*batch(make_sample(range(1))), mode='loss')


def test_what_is_no_head_is_refused(build_detector):
    with pytest.raises(ValueError, match=r'model\.heads\.count is a NoHead, which is no BEVHead'):
        build_detector(heads=dict(count=dict(type='NoHead')))


@pytest.mark.parametrize(
    ('heads', 'message'),
    [
        (dict(count=5), r'model\.heads\.count is the config of a head with its type'),
        (dict(detecton=dict(num_heads=2)), r'model\.heads\.detecton is the config of a head with its type'),
        (dict(type=dict(type='ObjectsPerCell')), "cannot be named 'type'"),
        (None, 'model.heads is a dict of configs by name, got None'),
    ],
)
def test_entries_that_are_no_heads_are_refused(build_detector, heads, message):
    with pytest.raises(ValueError, match=message):
        build_detector(heads=heads)


def test_what_a_head_says_and_does_is_compared(build_detector, make_sample, monkeypatch):
    model = build_detector(heads=two_heads(loss_name='count'))
    inputs, samples = batch(make_sample(range(1)))
    with pytest.raises(ValueError, match=r'heads\.count gives count, which would not be trained on'):
        model.train()(inputs, samples, mode='loss')
    monkeypatch.setattr(ObjectsPerCell, 'predicts', ())
    with pytest.raises(ValueError, match=r"heads\.count predicts \['pred_objects_per_cell'\], and its class says"):
        model.eval()(inputs, samples, mode='predict')
