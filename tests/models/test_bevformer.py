"""The detector: batches, streams, cameras, and errors at the door."""

import pytest
import torch
from mmdet3d.registry import MODELS

from tests.models.small_detector import batch, detector_config, forward, step

CLOSE = dict(atol=1e-5, rtol=1e-5)


def test_training_batch_of_two_equals_two_batches_of_one(build_detector, make_sample):
    model = build_detector().train()
    items = [make_sample(range(4, 7), 'a', num_objects=5), make_sample(range(2), 'b', num_objects=2)]
    together = forward(model, *batch(*items))
    alone = [forward(model, *batch(item)) for item in items]
    for key, dim in (('bev_embed', 0), ('cls_scores', 1), ('bbox_preds', 1)):
        torch.testing.assert_close(together[key], torch.cat([outputs[key] for outputs in alone], dim), **CLOSE)

    both = model(*batch(*items), mode='loss')
    single = [model(*batch(item), mode='loss') for item in items]
    for key, value in both.items():
        expected = (5 * single[0][key] + 2 * single[1][key]) / 7  # each was divided by its own matched boxes
        torch.testing.assert_close(value, expected, **CLOSE)


def test_history_changes_the_output_and_gets_no_gradient(build_detector, make_sample):
    model = build_detector().train()
    inputs, samples = batch(make_sample(range(3)))
    with_history = model(inputs, samples, mode='tensor').bev_embed
    alone = model(*batch(make_sample(range(2, 3))), mode='tensor').bev_embed
    assert (with_history - alone).abs().max() > 1e-2

    inputs['imgs'].requires_grad_()
    sum(model(inputs, samples, mode='loss').values()).backward()
    frames = inputs['imgs'].grad[0].abs().amax(dim=(1, 2, 3, 4))
    assert frames[:2].tolist() == [0, 0]
    assert frames[2] > 0


def test_without_history_every_frame_is_alone(build_detector, make_sample):
    model = build_detector(use_history=False).train()
    queue = model(*batch(make_sample(range(3))), mode='tensor').bev_embed
    alone = model(*batch(make_sample(range(2, 3))), mode='tensor').bev_embed
    torch.testing.assert_close(queue, alone)


def test_every_parameter_that_trains_gets_a_gradient(build_detector, make_sample):
    model = build_detector().train()
    sum(model(*batch(make_sample(range(2))), mode='loss').values()).backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_frame_without_objects(build_detector, make_sample):
    model = build_detector().train()
    losses = model(*batch(make_sample(range(2), num_objects=0)), mode='loss')
    assert set(losses) == {'loss_cls', 'loss_bbox', 'd0.loss_cls', 'd0.loss_bbox'}
    assert losses['loss_bbox'].item() == 0
    assert 0 < losses['loss_cls'].item() < 10
    sum(losses.values()).backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize('num_cameras', [1, 5, 7])
def test_any_number_of_cameras(build_detector, make_sample, num_cameras):
    model = build_detector(num_cameras=num_cameras).train()
    losses = model(*batch(make_sample(range(2), num_cameras=num_cameras)), mode='loss')
    assert all(loss.isfinite() for loss in losses.values())
    outputs = model(*batch(make_sample(range(1), num_cameras=num_cameras)), mode='tensor')
    assert outputs.bev_embed.shape == (1, 80, 16)


def test_training_keeps_each_parts_mode(build_detector, make_sample):
    model = build_detector().train()
    model.img_neck.eval()
    before = {name: part.training for name, part in model.named_modules()}
    model(*batch(make_sample(range(3))), mode='loss')
    assert {name: part.training for name, part in model.named_modules()} == before


@torch.no_grad()
def test_predict_streams_equal_the_queue(build_detector, make_sample):
    model = build_detector().eval()
    for frame in range(3):
        results = model.predict(*batch(*(make_sample(range(frame, frame + 1), scene) for scene in 'ab')))
    for scene, result in zip('ab', results, strict=True):
        outputs = model(*batch(make_sample(range(3), scene)), mode='tensor')
        expected = model.heads['detection'].predict(outputs)['pred_instances_3d'][0]
        torch.testing.assert_close(result.pred_instances_3d.scores_3d, expected.scores_3d, **CLOSE)
        assert result.pred_instances_3d.bboxes_3d.tensor.shape == (len(expected.scores_3d), 9)
    assert set(model.streams) == {'a', 'b'}


@torch.no_grad()
def test_streams_hold_the_last_batch_and_reset(build_detector, make_sample):
    model = build_detector().eval()
    model.predict(*batch(make_sample(range(1), 'a')))
    model.predict(*batch(make_sample(range(1), 'b')))
    assert set(model.streams) == {'b'}
    model.train()
    assert model.streams == {}
    model.eval().predict(*batch(make_sample(range(1), 'a')))
    model.reset_streams()
    assert model.streams == {}


@torch.no_grad()
@pytest.mark.parametrize(
    ('change', 'counts'),
    [
        ({}, True),
        ({'scene_token': 'other'}, False),
        ({'timestamp': 2.6}, False),
        ({'timestamp': 2.4}, True),
        ({'timestamp': 0.0}, False),
        ({'timestamp': -0.5}, False),
    ],
)
def test_when_history_counts(build_detector, make_sample, make_meta, change, counts):
    model = build_detector().eval()
    first, second = (make_sample(range(frame, frame + 1))[0] for frame in (0, 1))
    _, histories = step(model, first, [{**make_meta(0), 'timestamp': 0.5}], [None])
    meta = {**make_meta(1), 'timestamp': 1.0, **change}
    after, alone = (step(model, second, [meta], before)[0].bev_embed for before in (histories, [None]))
    assert torch.equal(after, alone) != counts


def test_ego_motion_is_relative_to_the_previous_frame_of_the_queue(build_detector, make_sample):
    model = build_detector().train()
    imgs, sample = make_sample(range(3))
    first, last = model.frames_of([sample.history[0], sample.metainfo])
    histories = model._run_history(imgs[None, [0, 2]], [[first, last]])
    motion = model.bev_encoder.ego_alignment.motion([last], histories)
    assert motion.turn.item() == pytest.approx(12)
    assert motion.translation[0, :2].norm().item() == pytest.approx(6)  # two frames of 3 m, the first at the origin


def test_images_of_another_number_of_cameras_are_refused(build_detector, make_sample, make_meta):
    model = build_detector()
    imgs, _ = make_sample(range(1), num_cameras=5)
    with pytest.raises(ValueError, match='num_cameras=6, got images of 5 cameras'):
        model.encode(imgs, model.frames_of([make_meta(0)]), [None])
    with pytest.raises(ValueError, match='num_cameras=6, got lidar2img of 5 cameras'):
        model.frames_of([make_meta(0, num_cameras=5)])


def test_predict_refuses_queues_and_two_frames_of_a_scene(build_detector, make_sample):
    model = build_detector().eval()
    with pytest.raises(ValueError, match='queues of 3 frames'):
        model.predict(*batch(make_sample(range(3))))
    with pytest.raises(ValueError, match='two frames of one scene'):
        model.predict(*batch(make_sample(range(1)), make_sample(range(1, 2))))


@pytest.mark.parametrize(
    ('overrides', 'message'),
    [
        (
            dict(bev_encoder={**detector_config()['bev_encoder'], 'num_cameras': 4}),
            'bev_encoder sets num_cameras, which the detector hands down',
        ),
        (dict(head=dict(embed_dims=8)), 'heads.detection sets embed_dims, which the detector hands down'),
        (dict(head=dict(decoder=dict(num_heads=8))), 'decoder sets num_heads, which the detection head hands down'),
        (dict(heads={}), 'model.heads is empty'),
        (dict(heads=dict(detection=None)), 'model.heads is empty'),
        (
            dict(heads=dict.fromkeys(('day', 'night'), detector_config()['heads']['detection'])),
            'heads.day and night both predict pred_instances_3d: keep one of them',
        ),
        (dict(bev_grid=(0, 10)), '0 x 10'),
        (dict(img_neck={**detector_config()['img_neck'], 'out_channels': 15}), 'width of the BEV is even, .* got 15'),
        (dict(point_cloud_range=(51.2, -51.2, -5, -51.2, 51.2, 3)), 'minima, then maxima'),
        (dict(ego_motion=dict(preset='official_v2')), "unknown ego_motion preset 'official_v2'"),
        (dict(ego_motion=dict(wrap=True)), r"unknown ego_motion fields \['wrap'\]"),
        (dict(grid_mask=dict(prob=1.5)), 'prob=1.5'),
    ],
)
def test_configs_that_do_not_fit_are_refused(build_detector, overrides, message):
    with pytest.raises(ValueError, match=message):
        build_detector(**overrides)


def test_backbone_that_does_not_fit_the_neck_is_refused(build_detector, make_sample):
    neck = dict(type='mmdet.FPN', in_channels=[8, 32], out_channels=16, num_outs=2)
    model = build_detector(img_neck=neck)
    with pytest.raises(ValueError, match=r'\[16, 32\] channels, img_neck.in_channels is \[8, 32\]'):
        model(*batch(make_sample(range(1))), mode='loss')


def test_fewer_level_embeddings_than_levels_are_refused(build_detector):
    with pytest.raises(ValueError, match="num_feature_levels=1 is less than the neck's 2 levels"):
        build_detector(bev_encoder={**detector_config()['bev_encoder'], 'num_feature_levels': 1})


def test_detector_is_registered():
    assert MODELS.get('BEVFormer').__module__ == 'bevformer_plugin.models.detectors.bevformer'
