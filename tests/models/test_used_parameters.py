"""Every step reaches every parameter, which data-parallel training with a static graph relies on."""

import pytest
import torch
from mmengine.structures import PixelData

from tests.models.shrunk_configs import CONFIGS, build_shrunk
from tests.models.small_detector import batch

RELEASED = sorted(str(path.relative_to(CONFIGS).with_suffix('')) for path in CONFIGS.rglob('*.py'))


def unreached(model, inputs, samples) -> list[str]:
    torch.manual_seed(0)
    if 'map' in model.heads:
        protocol = model.heads['map'].protocol
        shape = (len(protocol.classes), protocol.grid.bev_h, protocol.grid.bev_w)
        for sample in samples:
            sample.gt_map = PixelData(data=torch.randint(2, shape, dtype=torch.uint8))
    model.zero_grad(set_to_none=True)
    sum(model.loss(inputs, samples).values()).backward()
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None]


def test_all_configs_are_here():
    assert {
        'bevformer_base',
        'bevformer_small',
        'bevformer_tiny',
        'bevformer_nano',
        'ablations/bevformer_base_static',
    } <= set(RELEASED)


@pytest.mark.parametrize('name', RELEASED)
def test_with_and_without_history_and_without_objects(make_sample, name):
    model = build_shrunk(name)
    for queues in ([range(3), range(3)], [range(1), range(1)], [range(2), range(1)]):
        inputs, samples = batch(*(make_sample(frames, scene) for frames, scene in zip(queues, 'ab', strict=True)))
        assert unreached(model, inputs, samples) == [], queues
    assert unreached(model, *batch(make_sample(range(2), 'a', num_objects=0))) == []
