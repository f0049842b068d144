"""Samples of a batch do not know of each other: outputs, losses, gradients and streams of released, shrunk configs."""

import numpy as np
import pytest
import torch
from mmdet3d.structures import Det3DDataSample
from torch import Tensor, nn

from tests.models.shrunk_configs import NAMES, assert_same_gradients, build_shrunk, gradients
from tests.models.small_detector import IMAGE_HW, batch

CLOSE = dict(atol=1e-4, rtol=1e-4)
OUTPUTS = (('bev_embed', 0), ('all_cls_scores', 1), ('all_bbox_preds', 1))  # and the dimension of the batch


@pytest.fixture(params=NAMES)
def model(request) -> nn.Module:
    return build_shrunk(request.param)


@pytest.fixture
def make_sample(make_sample):
    """The rig of every scene is mounted at an angle of its own, so that its cameras see other queries."""

    def turn(meta: dict, degrees: float) -> dict:
        sin, cos = np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))
        return {
            **meta,
            'lidar2img': meta['lidar2img'] @ [[cos, -sin, 0, 0], [sin, cos, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
        }

    def make(frames: range, scene: str = 'a', num_objects: int = 4) -> tuple[Tensor, Det3DDataSample]:
        imgs, sample = make_sample(frames, scene, num_objects=num_objects)
        degrees = {'a': 0, 'b': 25, 'c': 70}[scene]
        history = [turn(meta, degrees) for meta in sample.history]
        sample.set_metainfo(turn({**sample.metainfo, 'history': history}, degrees))
        return imgs, sample

    return make


@pytest.fixture
def make_pair(make_sample):
    """A sample with three frames beside one of another scene, rig and motion: as long, shorter, cut or alone."""

    def make(kind: str) -> list[tuple[Tensor, Det3DDataSample]]:
        frames = {
            'long': range(7, 10),
            'shorter': range(8, 10),
            'cut': range(7, 10),
            'alone': range(9, 10),
            'empty': range(7, 10),
        }[kind]
        imgs, sample = make_sample(frames, 'b', num_objects=0 if kind == 'empty' else 3)
        if kind == 'cut':
            sample.set_metainfo({'history': [{**meta, 'scene_token': 'before'} for meta in sample.history]})
        return [make_sample(range(4, 7), 'a', num_objects=6), (imgs, sample)]

    return make


def normalizers(model: nn.Module, sample: Det3DDataSample) -> dict[str, int]:
    """By what each family of losses of a sample is divided, counted here anew."""
    boxes = sample.gt_instances_3d.bboxes_3d
    center = torch.cat([boxes.gravity_center, torch.ones(len(boxes), 1)], dim=1).double()
    grid = model.pts_bbox_head.grid
    x_min, y_min, _, x_max, y_max, _ = grid.point_cloud_range
    held = {
        (int((x - x_min) // grid.cell_x), int((y - y_min) // grid.cell_y))
        for x, y in center[:, :2].tolist()
        if x_min <= x < x_max and y_min <= y < y_max
    }
    seen, stride = set(), 8  # of nano's finest level
    for camera, matrix in enumerate(torch.as_tensor(sample.lidar2img)):
        for u, v, depth in (center @ matrix[:3].T).tolist():
            if depth > 1 and 0 <= u / depth < IMAGE_HW[1] and 0 <= v / depth < IMAGE_HW[0]:
                seen.add((camera, int(u / depth // stride), int(v / depth // stride)))
    return {'': len(boxes), 'proposal': len(held), 'perspective': len(seen)}


def sums(losses: dict[str, Tensor], counts: list[dict[str, int]]) -> dict[str, Tensor]:
    """Losses before their division by the batch's counts."""

    def count(key: str) -> int:
        family = key.split('.')[0] if key.startswith('p') else ''
        return max(1, sum(sample[family] for sample in counts))

    return {key: count(key) * loss for key, loss in losses.items()}


@pytest.mark.parametrize('kind', ['long', 'shorter', 'cut', 'alone'])
@torch.no_grad()
def test_outputs_of_a_batch_are_those_of_its_samples(model, make_pair, kind):
    items = make_pair(kind)
    together = model(*batch(*items), mode='tensor')
    alone = [model(*batch(item), mode='tensor') for item in items]
    for key, dim in OUTPUTS:
        torch.testing.assert_close(together[key], torch.cat([outputs[key] for outputs in alone], dim), **CLOSE)
    assert (together['bev_embed'][0] - together['bev_embed'][1]).abs().mean() > 0.03


@torch.no_grad()
def test_history_is_used_or_cut_by_each_sample_alone(model, make_pair, make_sample):
    bev_embed = {
        kind: model(*batch(*make_pair(kind)), mode='tensor')['bev_embed'] for kind in ('long', 'cut', 'alone')
    }
    for other in ('cut', 'alone'):
        torch.testing.assert_close(bev_embed['long'][0], bev_embed[other][0], **CLOSE)
    torch.testing.assert_close(bev_embed['cut'][1], bev_embed['alone'][1], **CLOSE)
    assert (bev_embed['long'][1] - bev_embed['alone'][1]).abs().mean() > 0.01
    without = model(*batch(make_sample(range(6, 7), 'a')), mode='tensor')['bev_embed'][0]
    assert (bev_embed['long'][0] - without).abs().mean() > 0.01


@pytest.mark.parametrize('kind', ['long', 'shorter', 'cut', 'alone', 'empty'])
def test_losses_and_gradients_of_a_batch_are_sums_over_its_samples(model, make_pair, kind):
    items = make_pair(kind)
    counts = [normalizers(model, sample) for _, sample in items]
    together = sums(model(*batch(*items), mode='loss'), counts)
    alone = [sums(model(*batch(item), mode='loss'), [count]) for item, count in zip(items, counts, strict=True)]
    for key, value in together.items():
        torch.testing.assert_close(value, alone[0][key] + alone[1][key], **CLOSE)
        assert value > 0
    expected = [gradients(model, sum(losses.values())) for losses in alone]
    summed = {name: expected[0][name] + expected[1][name] for name in expected[0]}
    assert all(gradient.abs().max() > 0 for gradient in summed.values())
    assert_same_gradients(gradients(model, sum(together.values())), summed)


@torch.no_grad()
def test_streams_in_a_batch_are_those_of_each_alone(model, make_sample):
    """Scene b ends after two frames and c follows in its place; a goes on."""
    model.eval()
    first = [make_sample(range(frame, frame + 1), 'a') for frame in range(5)]
    second = [make_sample(range(frame, frame + 1), 'b' if frame < 2 else 'c') for frame in range(5)]
    together, alone = [None, None], [[None], [None]]
    for step, pair in enumerate(zip(first, second, strict=True)):
        inputs, samples = batch(*pair)
        outputs, together = model.stream_step(inputs['imgs'][:, 0], [s.metainfo for s in samples], together)
        for index, (imgs, sample) in enumerate(pair):
            expected, alone[index] = model.stream_step(imgs, [sample.metainfo], alone[index])
            for key, dim in OUTPUTS:
                torch.testing.assert_close(outputs[key].select(dim, index), expected[key].select(dim, 0), **CLOSE)
            start = model.stream_step(imgs, [sample.metainfo], [None])[0]['bev_embed'][0]
            continues = step > 0 and not (index == 1 and step == 2)
            assert ((outputs['bev_embed'][index] - start).abs().mean() > 0.01) == continues
    assert [state.scene_token for state in together] == ['a', 'c']


@torch.no_grad()
def test_a_stream_may_begin_beside_one_that_runs(model, make_sample):
    model.eval()
    (first, old), (second, now), (other, begins) = (
        make_sample(range(frame, frame + 1), scene) for frame, scene in ((0, 'a'), (1, 'a'), (1, 'b'))
    )
    _, states = model.stream_step(first, [old.metainfo], [None])
    for order in ([0, 1], [1, 0]):
        imgs, metas, histories = [second, other], [now.metainfo, begins.metainfo], [states[0], None]
        outputs, _ = model.stream_step(
            torch.cat([imgs[i] for i in order]), [metas[i] for i in order], [histories[i] for i in order]
        )
        for place, i in enumerate(order):
            expected, _ = model.stream_step(imgs[i], [metas[i]], [histories[i]])
            torch.testing.assert_close(outputs['bev_embed'][place], expected['bev_embed'][0], **CLOSE)


def test_a_frame_without_objects_trains_on_classes_alone(model, make_sample):
    losses = model(*batch(make_sample(range(2), num_objects=0)), mode='loss')
    for key, loss in losses.items():
        assert loss.isfinite()
        assert (loss > 0) == key.endswith(('loss_cls', 'loss_heatmap')), key
    reached = gradients(model, sum(losses.values()))
    assert all(gradient.isfinite().all() for gradient in reached.values())
    assert reached['pts_bbox_head.cls_branches.1.6.weight'].abs().max() > 0
    assert reached['pts_bbox_head.reg_branches.1.4.weight'].abs().max() == 0
    assert reached['img_neck.lateral_convs.0.conv.weight'].abs().max() > 0


def test_a_scene_of_one_frame(model, make_sample):
    imgs, sample = make_sample(range(1))
    losses = model(*batch((imgs, sample)), mode='loss')
    reached = gradients(model, sum(losses.values()))
    assert all(gradient.isfinite().all() and gradient.abs().max() > 0 for gradient in reached.values())
    with torch.no_grad():
        (result,) = model.eval().predict(*batch((imgs, sample)))
        (again,) = model.predict(*batch(make_sample(range(1), 'b')))
        outputs, _ = model.stream_step(imgs, [sample.metainfo], [None])
    assert set(model.streams) == {'b'}
    (expected,) = model.pts_bbox_head.predict(outputs)
    torch.testing.assert_close(result.pred_instances_3d.scores_3d, expected.scores_3d, **CLOSE)
    assert again.pred_instances_3d.bboxes_3d.tensor.isfinite().all()
