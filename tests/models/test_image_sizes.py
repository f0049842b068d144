"""Samples whose images differ in size give in one batch what each gives alone: boxes, streams and losses."""

import re

import pytest
import torch
from mmdet3d.structures import Det3DDataSample
from mmengine.structures import InstanceData
from torch import nn

from tests.models.shrunk_configs import NAMES, assert_same_gradients, build_shrunk, gradients
from tests.models.small_detector import forward, step

CLOSE = dict(atol=1e-4, rtol=1e-4)
SIZES = {'a': (64, 96), 'b': (52, 90), 'c': (32, 64), 'd': (64, 96)}  # a, b and d are padded to 64 x 96


@pytest.fixture(params=NAMES)
def model(request) -> nn.Module:
    return build_shrunk(request.param)


@pytest.fixture
def prepare(make_sample):
    """Images and data samples of some scenes, out of a preprocessor."""

    def make(model: nn.Module, frames: range, scenes: str, num_objects: int = 4) -> tuple[dict, list[Det3DDataSample]]:
        items = [make_sample(frames, scene, num_objects=num_objects + ord(scene) - ord('a')) for scene in scenes]
        queues = [
            imgs[..., : SIZES[scene][0], : SIZES[scene][1]] * 50 + 120
            for scene, (imgs, _) in zip(scenes, items, strict=True)
        ]
        data = model.data_preprocessor(dict(inputs=dict(img=queues), data_samples=[sample for _, sample in items]))
        return data['inputs'], data['data_samples']

    return make


@torch.no_grad()
def test_outputs_are_those_of_each_alone(model, prepare):
    inputs, samples = prepare(model, range(3), 'cadb')
    assert inputs['imgs'].shape[-2:] == (64, 96)
    together = forward(model, inputs, samples)
    alone = [forward(model, *prepare(model, range(3), scene)) for scene in 'cadb']
    for key, dim in (('bev_embed', 0), ('cls_scores', 1), ('bbox_preds', 1)):
        torch.testing.assert_close(together[key], torch.cat([outputs[key] for outputs in alone], dim), **CLOSE)
    small = {**samples[0].metainfo, 'pad_shape': (64, 96), 'history': []}
    padded, unpadded = (
        step(model, inputs['imgs'][:1, -1], [meta], [None])[0].bev_embed for meta in (small, samples[0].metainfo)
    )
    assert (padded - unpadded).abs().mean() > 1e-3  # what padding to the largest would do


def assert_same_boxes(found: InstanceData, expected: InstanceData) -> None:
    """Each box has its like of the same class, in whatever order: round-off decides between equal scores."""
    distances = torch.cdist(expected.bboxes_3d.tensor.double(), found.bboxes_3d.tensor.double(), p=torch.inf)
    distances[expected.labels_3d[:, None] != found.labels_3d] = torch.inf
    nearest, partner = distances.min(dim=1)
    assert (nearest < 1e-3 * expected.bboxes_3d.tensor.abs().amax(1).clamp(min=1)).all()
    assert len(partner.unique()) > 0.98 * len(partner)


@torch.no_grad()
def test_streams_are_those_of_each_alone(model, prepare):
    model.eval()
    found = []
    for scenes in ('ac', 'a', 'c'):
        model.reset_streams()
        for frame in range(3):
            results = model.predict(*prepare(model, range(frame, frame + 1), scenes))
        found += [result.pred_instances_3d for result in results]
    for together, alone in zip(found[:2], found[2:], strict=True):
        torch.testing.assert_close(together.scores_3d, alone.scores_3d, **CLOSE)
        assert_same_boxes(together, alone)


def summed_losses(model: nn.Module, inputs: dict, samples: list[Det3DDataSample]) -> tuple[dict, dict]:
    """Losses before their division by a count over the batch, and that count, by name of the loss."""
    head = model.heads['detection']
    families = {'': head.criterion, 'proposal.': head.queries}
    if 'perspective' in model.heads:
        families['perspective.'] = model.heads['perspective']
    counts, hooks = {}, []
    for family, part in families.items():
        for name, module in part.named_children():
            if name.startswith('loss'):
                key = family + name
                hooks.append(
                    module.register_forward_pre_hook(
                        lambda module, args, kwargs, key=key: counts.update({key: kwargs['avg_factor']}),
                        with_kwargs=True,
                    )
                )
    losses = model(inputs, samples, mode='loss')
    for hook in hooks:
        hook.remove()
    return {key: loss * counts[re.sub(r'^d\d+\.', '', key)] for key, loss in losses.items()}, counts


def test_losses_and_gradients_are_sums_over_the_samples(model, prepare):
    together, count = summed_losses(model, *prepare(model, range(2), 'ac'))
    alone, counts = zip(*(summed_losses(model, *prepare(model, range(2), scene)) for scene in 'ac'), strict=True)
    assert count == {key: counts[0][key] + counts[1][key] for key in count}
    for key, value in together.items():
        assert value > 0
        torch.testing.assert_close(value, alone[0][key] + alone[1][key], **CLOSE)
    expected = [gradients(model, sum(losses.values())) for losses in alone]
    summed = {name: expected[0][name] + expected[1][name] for name in expected[0]}
    assert_same_gradients(gradients(model, sum(together.values())), summed)


def test_synchronised_normalisation_cannot_train_on_several_sizes(prepare):
    model = build_shrunk('bevformer_nano')
    model.img_backbone = nn.SyncBatchNorm.convert_sync_batchnorm(model.img_backbone)
    with pytest.raises(ValueError, match=r'differ in size, \[\(32, 64\), \(64, 96\)\].*image_size of the dataset'):
        model(*prepare(model, range(1), 'ac'), mode='loss')


@torch.no_grad()
def test_padding_beyond_the_images_is_refused(prepare):
    model = build_shrunk('bevformer_tiny')
    inputs, samples = prepare(model, range(1), 'c')
    samples[0].set_metainfo({'pad_shape': (64, 96)})
    with pytest.raises(ValueError, match=r'pad_shape \(64, 96\) of sample c0 is larger than .*\(32, 64\)'):
        model.eval().predict(inputs, samples)
