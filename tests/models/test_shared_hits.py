"""Which camera sees which pillar is worked out once for a rig."""

import pytest
import torch

from bevformer_plugin.layers import PillarHits
from tests.models.small_detector import batch


@pytest.fixture
def detector(build_detector):
    return build_detector().eval()


def bevs(detector: torch.nn.Module, make_sample, scenes: str) -> list[torch.Tensor]:
    """A frame of each scene, each of which has a rig of its own."""
    found = []
    for scene in scenes:
        imgs, sample = make_sample(range(1), scene)
        outputs = detector.stream_step(imgs, [sample.metainfo], [None])[0]
        found.append(outputs['bev_embed'])
    return found


@torch.no_grad()
def test_once_for_a_rig_and_anew_for_another(detector, build_detector, make_sample, monkeypatch):
    worked_out = []

    def counted(*arguments, work=PillarHits.from_projection):
        worked_out.append(arguments)
        return work(*arguments)

    monkeypatch.setattr(PillarHits, 'from_projection', counted)
    found = bevs(detector, make_sample, 'aabba')
    assert len(worked_out) == 3
    for bev, scene in zip(found, 'aabba', strict=True):
        assert torch.equal(bev, bevs(build_detector().eval(), make_sample, scene)[0])
    assert not torch.equal(found[0], found[2])


def test_training_goes_on_after_a_test_in_inference_mode(detector, build_detector, make_sample):
    imgs, sample = make_sample(range(1))
    with torch.inference_mode():
        bevs(detector, make_sample, 'a')
    gradients = []
    for model in (detector, build_detector()):
        model.train()
        torch.manual_seed(0)
        sum(model.loss(*batch((imgs, sample))).values()).backward()
        gradients.append([parameter.grad for parameter in model.parameters() if parameter.grad is not None])
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


def test_images_of_another_size_are_another_rig(detector, make_sample):
    imgs, sample = make_sample(range(1))
    padded = torch.nn.functional.pad(imgs, (0, 32, 0, 32))
    transformer = detector.pts_bbox_head.transformer
    with torch.no_grad():
        bevs(detector, make_sample, 'a')
        before = transformer._last_hits
        detector.stream_step(padded, [sample.metainfo], [None])
    assert not torch.equal(transformer._last_hits.lengths, before.lengths)
