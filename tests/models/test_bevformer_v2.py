"""BEVFormerV2 on the synthetic world: frames kept and frames anew, missing frames, batches, and what is refused."""

import time
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from bevformer_plugin.datasets import SceneStreamBatchSampler, SceneStreamSampler
from bevformer_plugin.deployment import optimize_for_inference
from bevformer_plugin.errors import InputError
from bevformer_plugin.models import CameraFeatures, Frame
from bevformer_plugin.models.bev import left_behind, next_position
from tests.helpers.info_files import write_infos
from tests.helpers.module_calls import record_calls
from tests.models.shrunk_configs import assert_same_gradients, gradients
from tests.models.v2_world import batch_of, build, dataset_of, seeded_item, shrunk_config, without_batch_statistics

OFFSETS = [-3, -1, 0]


@pytest.fixture(scope='module')
def cfg():
    return shrunk_config('t2', OFFSETS)


@torch.no_grad()
def anew(model: nn.Module, item: dict) -> torch.Tensor:
    """The fused BEV of an item whose frames are all encoded now."""
    return model(*batch_of(model, [item]), mode='tensor').bev_embed


@pytest.mark.parametrize(('gaps', 'batch_size'), [((), 1), ((2, 9), 2)], ids=['all frames', 'missing, interleaved'])
@torch.no_grad()
def test_kept_features_give_what_all_frames_anew_give(
    cfg, synthetic_root, info_files, read_infos, tmp_path, gaps, batch_size
):
    infos = read_infos('mini_train')  # two scenes of six keyframes
    infos['data_list'] = [info for number, info in enumerate(infos['data_list']) if number not in gaps]
    ann_file = write_infos(tmp_path / 'infos.pkl', infos)
    model = build(cfg).eval()
    tested = dataset_of(cfg, 'val', synthetic_root, ann_file)
    pipeline = cfg.val_dataloader.dataset.pipeline
    whole = dataset_of(cfg, 'train', synthetic_root, ann_file, pipeline=pipeline, filter_empty_gt=False)
    lengths, streamed = set(), {}
    calls = record_calls(model.img_backbone)
    for batch in SceneStreamBatchSampler(SceneStreamSampler(tested), batch_size):
        fused = record_calls(model.bev_fusion)
        model.predict(*batch_of(model, [tested[index] for index in batch]))
        for place, index in enumerate(batch):
            streamed[index] = fused[0].output[place]
    assert len(calls) == len(tested) if batch_size == 1 else len(calls) < len(tested)  # each frame once
    for index, bev in streamed.items():
        item = whole[index]
        lengths.add(len(item['data_samples'].history))
        torch.testing.assert_close(bev, anew(model, item)[0], atol=1e-5, rtol=1e-5)
    assert lengths == {0, 1, 2}


@torch.no_grad()
def test_a_missing_frame_is_the_nearest_newer_one(cfg, synthetic_root, info_files):
    model = build(cfg).eval()
    dataset = dataset_of(cfg, 'train', synthetic_root, info_files['mini_train'], filter_empty_gt=False)
    for index, equal in ((0, (0, 1, 2)), (1, (0, 1)), (3, ())):  # position in the scene
        fused = record_calls(model.bev_fusion)
        anew(model, seeded_item(dataset, index, 0))
        bevs = fused[-1].inputs['bevs']
        for older in range(2):
            same = torch.equal(bevs[older], bevs[older + 1])
            assert same == (older in equal and older + 1 in equal), (index, older)


def test_history_is_not_trained_through(cfg, synthetic_root, info_files):
    model = without_batch_statistics(build(cfg))
    dataset = dataset_of(cfg, 'train', synthetic_root, info_files['mini_train'])
    inputs, samples = batch_of(model, [seeded_item(dataset, 4, 0)])
    inputs['imgs'].requires_grad_()
    sum(model(inputs, samples, mode='loss').values()).backward()
    reached = inputs['imgs'].grad.abs().amax(dim=(2, 3, 4, 5))[0]
    assert (reached[:-1] == 0).all() and reached[-1] > 0


def test_every_parameter_is_trained(cfg, synthetic_root, info_files):
    model = build(cfg).train()
    dataset = dataset_of(cfg, 'train', synthetic_root, info_files['mini_train'])
    losses = model(*batch_of(model, [seeded_item(dataset, 4, 0)]), mode='loss')
    assert len([name for name in losses if name.endswith('_mono')]) == 10
    sum(losses.values()).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    # Of the perspective head's levels some have no object.
    still = [name for name, parameter in model.named_parameters() if not parameter.grad.abs().max() > 0]
    assert [name for name in still if not name.startswith('heads.perspective.')] == []


def divisors(model: nn.Module, item: dict) -> dict[str, float]:
    """By what each family of an item's losses is divided, from its true objects."""
    inputs, samples = batch_of(model, [item])
    head = model.heads['perspective']
    with torch.no_grad():
        (features,) = model(inputs, samples, mode='tensor').camera_features
        part = head.locations(features.levels, *head._instances(features, samples))
    central = part.targets.centerness()
    return {
        'detection': min(len(samples[0].gt_instances_3d.bboxes_3d), model.heads['detection'].queries.num_query),
        'positives': len(central),
        'centerness': central.sum().item(),
        'attributes': central[part.attributes < 3].sum().item(),
        'speeds': central[part.speeds.isfinite()].sum().item(),
    }


def family_of(loss: str) -> str:
    if not loss.endswith('_mono'):
        return 'detection'
    families = {
        'loss_cls': 'positives',
        'loss_centerness': 'positives',
        'loss_attr': 'attributes',
        'loss_speed': 'speeds',
    }
    return families.get(loss.removesuffix('_mono'), 'centerness')


def test_a_batch_of_two_is_two_batches_of_one(cfg, synthetic_root, info_files):
    """In losses and gradients, with another size, mirroring and BEV augmentation for each sample.

    A gradient jumps where an activation is 0 to within rounding, which happens with some weights on some processors,
    so the gradients of the first or of a second set of weights have to agree; wrong ones agree with neither.
    """
    dataset = dataset_of(cfg, 'train', synthetic_root, info_files['mini_train'])
    items = [seeded_item(dataset, 4, 1), seeded_item(dataset, 7, 4)]  # of two scenes; the second lacks a frame
    metas = [item['data_samples'].metainfo for item in items]
    assert metas[0]['img_shape'] != metas[1]['img_shape']
    assert len(metas[0]['history']) != len(metas[1]['history'])
    assert (metas[0]['bev_augmentation'] != metas[1]['bev_augmentation']).all()
    mirrored = [torch.det(torch.as_tensor(meta['lidar2img'][0])) < 0 for meta in metas]
    assert mirrored[0] != mirrored[1]

    try:
        assert_same_gradients(*gradients_of_batch_and_sum(cfg, items, seed=0))
    except AssertionError:
        assert_same_gradients(*gradients_of_batch_and_sum(cfg, items, seed=1))


def gradients_of_batch_and_sum(cfg, items, seed):
    """The gradients of a batch, and the sum of those of its samples weighted as in the batch, whose losses agree."""
    model = without_batch_statistics(build(cfg, seed))
    together = model(*batch_of(model, items), mode='loss')
    of_batch = gradients(model, sum(together.values()))
    counts = [divisors(model, item) for item in items]
    expected = dict.fromkeys(together, 0.0)
    summed = {name: torch.zeros_like(gradient) for name, gradient in of_batch.items()}
    for item, own in zip(items, counts, strict=True):
        losses = model(*batch_of(model, [item]), mode='loss')
        shares = {}
        for name, loss in losses.items():
            family = family_of(name)
            shares[name] = loss * own[family] / sum(count[family] for count in counts)
            expected[name] += shares[name].item()
        for name, gradient in gradients(model, sum(shares.values())).items():
            summed[name] += gradient
    assert {name: loss.item() for name, loss in together.items()} == pytest.approx(expected, rel=1e-4)
    return of_batch, summed


def test_images_without_objects_are_not_trained_on(cfg, synthetic_root, info_files):
    model = build(cfg).train()
    dataset = dataset_of(cfg, 'train', synthetic_root, info_files['mini_train'])
    item = seeded_item(dataset, 4, 0)
    item['data_samples'].gt_camera_instances = item['data_samples'].gt_camera_instances[:0]
    losses = model(*batch_of(model, [item]), mode='loss')
    assert {loss.item() for name, loss in losses.items() if name.endswith('_mono')} == {0.0}
    sum(losses.values()).backward()


def test_half_precision_moves_the_perspective_losses_a_little(cfg, synthetic_root, info_files):
    """Under autocast boxes are still projected and compared in float32."""
    model = without_batch_statistics(build(cfg))
    dataset = dataset_of(cfg, 'train', synthetic_root, info_files['mini_train'])
    inputs, samples = batch_of(model, [seeded_item(dataset, 4, 0)])
    exact = model(inputs, samples, mode='loss')
    with torch.autocast('cpu', torch.bfloat16):
        mixed = model(inputs, samples, mode='loss')
    mono = [name for name in exact if name.endswith('_mono')]
    assert {mixed[name].dtype for name in mono} == {torch.float32}
    for name in mono:
        assert mixed[name].item() == pytest.approx(exact[name].item(), rel=0.05), name


@pytest.mark.slow
@torch.no_grad()
def test_kept_features_are_faster(synthetic_root, info_files):
    """Frames a second of eight frames kept and anew, in one run; pytest -s shows them."""
    cfg = shrunk_config('t8', [-7, -6, -5, -4, -3, -2, -1, 0])
    cfg.model.img_backbone.base_channels = 32
    cfg.model.img_neck.in_channels = [64, 128, 256]
    model = build(cfg).eval()
    ann_file, pipeline = info_files['mini_val'], cfg.val_dataloader.dataset.pipeline
    tested = dataset_of(cfg, 'val', synthetic_root, ann_file)
    whole = dataset_of(cfg, 'train', synthetic_root, ann_file, pipeline=pipeline, filter_empty_gt=False)
    batches = {
        'kept': [batch_of(model, [tested[index]]) for index in range(6)],
        'anew': [batch_of(model, [whole[index]]) for index in range(6)],
    }
    seconds = {}
    for name, run in (('anew', lambda *batch: model(*batch, mode='tensor')), ('kept', model.predict)):
        start = time.perf_counter()
        for inputs, samples in batches[name]:
            run(inputs, samples)
        seconds[name] = time.perf_counter() - start
    print({name: f'{6 / duration:.2f} frames/s' for name, duration in seconds.items()})
    assert seconds['kept'] < 0.6 * seconds['anew']


@pytest.mark.slow
@torch.no_grad()
def test_an_optimised_copy_detects_the_same(cfg, synthetic_root, info_files):
    model = build(cfg).eval()
    dataset = dataset_of(cfg, 'val', synthetic_root, info_files['mini_val'])
    optimized = optimize_for_inference(model, torch.float32)
    for index in range(3):
        ours, theirs = (
            copy.predict(*batch_of(model, [dataset[index]]))[0].pred_instances_3d for copy in (optimized, model)
        )
        torch.testing.assert_close(ours.scores_3d, theirs.scores_3d, atol=1e-4, rtol=0)


@pytest.mark.parametrize('offsets', [[], [0, -1], [-1], [-1, -1, 0], [1, 0], '-1,0', [-1.0, 0]])
def test_offsets_rise_to_zero(cfg, offsets):
    with pytest.raises(InputError, match=r'frame_offsets are whole numbers that rise to 0, such as \[-1, 0\], not'):
        build_with(cfg, frame_offsets=offsets)


@pytest.mark.parametrize(('offsets', 'fusion'), [([0], dict(type='BEVFusion')), ([-1, 0], None)])
def test_frames_and_fusion_belong_together(cfg, offsets, fusion):
    with pytest.raises(InputError, match='several frames need a fusion, a single one has nothing to fuse'):
        build_with(cfg, frame_offsets=offsets, bev_fusion=fusion)


def build_with(cfg, **settings):
    changed = cfg.copy()
    changed.model = {**cfg.model, **settings}
    return build(changed)


def test_frames_need_the_place_of_the_lidar(cfg, synthetic_root, info_files):
    model = build(cfg).eval()
    dataset = dataset_of(cfg, 'train', synthetic_root, info_files['mini_train'])
    item = seeded_item(dataset, 4, 0)
    sample = item['data_samples']
    history = [{key: value for key, value in meta.items() if key != 'lidar2ego'} for meta in sample.history]
    sample.set_metainfo({'history': history})
    with pytest.raises(InputError, match='lacks lidar2ego, by which frames are brought into one LiDAR frame'):
        anew(model, item)


def test_a_frame_with_features_that_are_not_finite_is_left_out():
    """It would spoil the frames that it is fused with; the frames before it stay."""
    frames = [
        Frame(f'sample {index}', 'scene', 0.5 * index, torch.eye(4), torch.eye(4), torch.zeros(13), index=index)
        for index in range(4)
    ]
    history = None
    for index, frame in enumerate(frames):
        level = torch.full((1, 6, 2, 3, 3), float('inf') if index == 2 else 1.0)
        (history,) = left_behind([CameraFeatures([0], [level], (32, 32))], [frame], [history], reach=3)
    assert [kept.position for kept in history.kept] == [1, 3] and history.position == 3
    assert history.at(2) is None and history.at(1).frame is frames[1]


def test_positions_count_frames_where_the_scene_does_not():
    frame = Frame('', 'scene', 0.0, torch.eye(4), torch.eye(4), torch.zeros(13))
    history = None
    for expected in (0, 1, 2):
        assert next_position(history, frame) == expected
        (history,) = left_behind([CameraFeatures([0], [torch.ones(1, 6, 2, 3, 3)], (32, 32))], [frame], [history], 2)
    assert [kept.position for kept in history.kept] == [1, 2]


@pytest.mark.parametrize(
    'settings',
    [
        dict(strides=[8, 16], largest_sides=[64, 1e8], mean_depths=[30, 10], std_depths=[9, 5]),
        dict(strides=[4, 8, 16, 32, 64]),
    ],
    ids=['two for five levels', 'of other levels'],
)
def test_strides_of_the_perspective_head_are_those_of_the_neck(cfg, synthetic_root, info_files, settings):
    changed = deepcopy(cfg)
    changed.model.heads.perspective.update(settings)
    model = build(changed).train()
    item = seeded_item(dataset_of(cfg, 'train', synthetic_root, info_files['mini_train']), 4, 0)
    with pytest.raises(InputError, match=r'strides of the perspective head are \[.*, and the neck gives levels of \['):
        model(*batch_of(model, [item]), mode='loss')


def test_bevformer_refuses_boxes_that_were_moved_without_its_bev(build_detector, make_sample):
    model = build_detector().train()
    imgs, sample = make_sample(range(1))
    sample.set_metainfo({'bev_augmentation': np.eye(2)})
    with pytest.raises(InputError, match='of sample a0 were moved by RandomBEVAugmentation, and a BEVFormer does not'):
        model({'imgs': imgs[None]}, [sample], mode='loss')


def test_a_position_that_is_no_number_is_refused(cfg, synthetic_root, info_files):
    item = seeded_item(dataset_of(cfg, 'train', synthetic_root, info_files['mini_train']), 4, 0)
    meta = {**item['data_samples'].metainfo, 'frame_idx': 'third'}
    with pytest.raises(InputError, match=r"frame_idx of sample .* is the position of the keyframe .*, not 'third'"):
        Frame.from_meta(meta, 6)
