"""Queues, labels, geometry and batches of the temporal dataset, on the synthetic world."""

import copy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from nuscenes.utils.geometry_utils import view_points

from bevformer_plugin.datasets.training_sampler import SeededIndex
from bevformer_plugin.geometry import normalize_boxes
from bevformer_plugin.models import BEVFormerDataPreprocessor

TEST_PIPELINE = [{'type': 'LoadMultiViewImages'}, {'type': 'ResizeMultiView'}, {'type': 'PackTemporalInputs'}]


def queue(dataset, index):
    """Frame numbers of an item, without loading images."""
    item = dataset.get_data_info(index)
    assert {frame['scene_token'] for frame in item['history']} <= {item['scene_token']}
    return tuple(frame['frame_idx'] for frame in (*item['history'], item))


def possible_queues(frame_idx, queue_length, first=0):
    """Every outcome of: list the queue_length frames before, drop one, keep those that exist."""
    before = range(frame_idx - queue_length, frame_idx)
    return {(*(kept for kept in before if kept != dropped and kept >= first), frame_idx) for dropped in before}


@pytest.mark.parametrize('queue_length', [1, 2, 3, 4])
def test_queues_are_those_of_the_rule(build_dataset, queue_length):
    dataset = build_dataset(queue_length=queue_length)
    assert len(dataset) == 12
    np.random.seed(0)
    for index in range(len(dataset)):
        drawn = {queue(dataset, index) for _ in range(80)}
        assert drawn == possible_queues(index % 6, queue_length)


def test_each_frame_is_dropped_equally_often(build_dataset):
    dataset = build_dataset(queue_length=3)
    np.random.seed(1)
    drawn = [queue(dataset, 5) for _ in range(600)]
    counts = [drawn.count(expected) for expected in [(2, 3, 5), (2, 4, 5), (3, 4, 5)]]
    assert sum(counts) == 600
    assert all(150 < count < 250 for count in counts)


def test_without_random_drop_the_frames_right_before(build_dataset):
    dataset = build_dataset(queue_length=3, random_drop=False)
    expected = [(0,), (0, 1), (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5)]
    assert [queue(dataset, index) for index in range(12)] == 2 * expected


def test_a_missing_keyframe_ends_the_history(build_dataset, read_infos):
    infos = read_infos('mini_train')
    del infos['data_list'][2]
    dataset = build_dataset(infos, queue_length=3)
    np.random.seed(0)
    for index, frame_idx in enumerate([0, 1, 3, 4, 5]):
        drawn = {queue(dataset, index) for _ in range(80)}
        assert drawn == possible_queues(frame_idx, 3, first=3 if frame_idx >= 3 else 0)


def test_labels_follow_names(build_dataset, read_infos):
    infos = read_infos('mini_train')
    names = {index: name for name, index in infos['metainfo']['categories'].items()}
    classes = ['pedestrian', 'car', 'barrier']
    dataset = build_dataset(infos, metainfo={'classes': classes}, queue_length=1)
    for index, info in enumerate(infos['data_list']):
        truth = [
            (classes.index(names[instance['bbox_label_3d']]), instance)
            for instance in info['instances']
            if names[instance['bbox_label_3d']] in classes and instance['num_lidar_pts'] + instance['num_radar_pts']
        ]
        targets = dataset[index]['data_samples'].gt_instances_3d
        assert targets.labels_3d.tolist() == [label for label, _ in truth]
        assert targets.labels_3d.dtype == torch.int64
        boxes = torch.tensor([[*instance['bbox_3d'], *instance['velocity']] for _, instance in truth])
        boxes = boxes.reshape(-1, 9)
        torch.testing.assert_close(targets.bboxes_3d.gravity_center, boxes[:, :3])
        torch.testing.assert_close(targets.bboxes_3d.bottom_center[:, 2], boxes[:, 2] - boxes[:, 5] / 2)
        torch.testing.assert_close(targets.bboxes_3d.tensor[:, 3:], boxes[:, 3:], equal_nan=True)


def test_another_numbering_of_categories(build_dataset, read_infos):
    infos = read_infos('mini_train')
    renumbered = copy.deepcopy(infos)
    renumbered['metainfo']['categories'] = {name: 9 - index for name, index in infos['metainfo']['categories'].items()}
    for info in renumbered['data_list']:
        for instance in info['instances']:
            instance['bbox_label_3d'] = 9 - instance['bbox_label_3d']
    expected = [item['ann_info']['gt_labels_3d'] for item in map(build_dataset(infos).get_data_info, range(12))]
    labels = [item['ann_info']['gt_labels_3d'] for item in map(build_dataset(renumbered).get_data_info, range(12))]
    for given, wanted in zip(labels, expected, strict=True):
        np.testing.assert_array_equal(given, wanted)


def test_range_limits_training_targets_only(build_dataset, read_infos):
    limits = [-20.0, -10.0, -5.0, 20.0, 30.0, 3.0]
    train = build_dataset(point_cloud_range=limits, queue_length=1)
    everything = build_dataset(queue_length=1)
    test = build_dataset(point_cloud_range=limits, test_mode=True, pipeline=TEST_PIPELINE)
    removed = 0
    for index in range(len(train)):
        centres = everything[index]['data_samples'].gt_instances_3d.bboxes_3d.tensor[:, :2]
        inside = ((centres > torch.tensor([-20.0, -10.0])) & (centres < torch.tensor([20.0, 30.0]))).all(1)
        kept = train[index]['data_samples'].gt_instances_3d.bboxes_3d.tensor[:, :2]
        torch.testing.assert_close(kept, centres[inside])
        assert len(test[index]['data_samples'].eval_ann_info['gt_bboxes_3d']) == len(centres)
        removed += (~inside).sum().item()
    assert removed > 0


def test_objects_without_points_are_no_targets(build_dataset, read_infos):
    infos = read_infos('mini_train')
    instances = infos['data_list'][0]['instances']
    for instance in instances:
        instance.update(num_lidar_pts=0, num_radar_pts=0, bbox_3d_isvalid=False)
    instances[1].update(num_radar_pts=2, bbox_3d_isvalid=True)
    infos['data_list'][6]['instances'] = []
    dataset = build_dataset(infos)
    targets = dataset[0]['data_samples'].gt_instances_3d
    torch.testing.assert_close(targets.bboxes_3d.gravity_center, torch.tensor([instances[1]['bbox_3d'][:3]]))
    empty = dataset[6]['data_samples'].gt_instances_3d
    assert empty.bboxes_3d.tensor.shape == (0, 9)
    assert empty.labels_3d.shape == (0,)


def test_a_training_item(build_dataset, read_infos, synthetic_root):
    infos = read_infos('mini_train')['data_list']
    dataset = build_dataset(queue_length=3, random_drop=False, cameras=['CAM_BACK', 'CAM_FRONT_LEFT'])
    item = dataset[4]
    sample = item['data_samples']
    assert item['inputs']['img'].shape == (3, 2, 3, 112, 200)
    assert item['inputs']['img'].dtype == torch.uint8
    for meta, info, frame in zip(
        [*sample.history, sample.metainfo], infos[2:5], item['inputs']['img'].numpy(), strict=True
    ):
        assert meta['sample_idx'] == info['token']
        assert meta['cameras'] == ['CAM_BACK', 'CAM_FRONT_LEFT']
        assert meta['img_shape'] == meta['ori_shape'] == (112, 200)
        for key in ('scene_token', 'scene_name', 'frame_idx', 'timestamp'):
            assert meta[key] == info[key]
        np.testing.assert_array_equal(meta['can_bus'], info['can_bus'][3:16])  # without the pose
        np.testing.assert_array_equal(meta['ego2global'], info['ego2global'])
        np.testing.assert_array_equal(meta['lidar2ego'], info['lidar_points']['lidar2ego'])
        assert meta['lidar2img'].shape == (2, 4, 4)
        assert meta['lidar2img'].dtype == np.float64
        for camera, path, image in zip(meta['cameras'], meta['img_paths'], frame, strict=True):
            assert Path(path) == synthetic_root / info['images'][camera]['img_path']
            np.testing.assert_array_equal(image.transpose(1, 2, 0), cv2.imread(path))


def test_a_test_item(build_dataset):
    dataset = build_dataset(split='mini_val', test_mode=True, pipeline=TEST_PIPELINE)
    for index in (0, 3, 6):
        item = dataset[index]
        assert item['inputs']['img'].shape == (1, 6, 3, 112, 200)
        assert item['data_samples'].history == []
        assert item['data_samples'].frame_idx == index % 6
        assert 'gt_instances_3d' not in item['data_samples']
        assert len(item['data_samples'].eval_ann_info['gt_labels_3d']) > 0


def test_box_corners_project_where_the_devkit_projects_them(build_dataset, tables):
    dataset = build_dataset(queue_length=1, image_size=(100, 80))
    compared = 0
    for index in (0, 4, 9):
        sample = dataset[index]['data_samples']
        assert (sample.img_shape, sample.ori_shape) == ((80, 100), (112, 200))
        keyframe = tables.get('sample', sample.sample_idx)
        _, lidar_boxes, _ = tables.get_sample_data(keyframe['data']['LIDAR_TOP'])
        lidar_corners = {box.token: box.corners() for box in lidar_boxes}  # 3x8, metres
        for camera, lidar2img in zip(sample.cameras, sample.lidar2img, strict=True):
            _, boxes, intrinsic = tables.get_sample_data(keyframe['data'][camera])
            for box in boxes:
                pixels = view_points(box.corners(), intrinsic, normalize=True)[:2] * [[100 / 200], [80 / 112]]
                ours = lidar2img @ np.vstack([lidar_corners[box.token], np.ones(8)])
                in_front = box.corners()[2] > 0.5
                np.testing.assert_allclose((ours[:2] / ours[2])[:, in_front], pixels[:, in_front], atol=1e-4)
                compared += in_front.sum()
    assert compared > 100


def test_items_are_copies(build_dataset):
    dataset = build_dataset(random_drop=False)
    first, expected = dataset[4], copy.deepcopy(dataset[4])
    for meta in (*first['data_samples'].history, first['data_samples'].metainfo):
        meta['can_bus'][:] = 0
        meta['lidar2img'][:] = 0
    first['data_samples'].gt_instances_3d.bboxes_3d.tensor.zero_()
    again = dataset[4]
    assert torch.equal(again['inputs']['img'], expected['inputs']['img'])
    for ours, wanted in zip(again['data_samples'].history, expected['data_samples'].history, strict=True):
        np.testing.assert_array_equal(ours['can_bus'], wanted['can_bus'])
        np.testing.assert_array_equal(ours['lidar2img'], wanted['lidar2img'])
    boxes, wanted = (item['data_samples'].gt_instances_3d.bboxes_3d.tensor for item in (again, expected))
    assert torch.equal(boxes, wanted)


@pytest.fixture
def train_epoch(base_config, synthetic_root, info_files):
    """Queues and images of the base config's training dataloader with batches of two."""
    config = base_config.train_dataloader
    config.update(batch_size=2, num_workers=2, persistent_workers=False)
    config.dataset.update(
        data_root=str(synthetic_root),
        ann_file=str(info_files['mini_train']),
        cameras=['CAM_FRONT', 'CAM_BACK', 'CAM_FRONT_LEFT'],
        image_size=(96, 64),
    )

    def run(seed):
        with DefaultScope.overwrite_default_scope('mmdet3d'):
            return list(Runner.build_dataloader(config, seed=seed))

    return run


def test_batches_of_the_base_config(train_epoch, read_infos):
    batches = train_epoch(seed=3)
    tokens = [sample.sample_idx for batch in batches for sample in batch['data_samples']]
    assert sorted(tokens) == sorted(info['token'] for info in read_infos('mini_train')['data_list'])
    assert len(batches) == 6
    lengths = set()
    for batch in batches:
        for images, sample in zip(batch['inputs']['img'], batch['data_samples'], strict=True):
            assert images.shape == (len(sample.history) + 1, 3, 3, 64, 96)
            assert sample.gt_instances_3d.bboxes_3d.tensor.shape[1] == 9
            lengths.add(len(images))
    assert lengths == {1, 2, 3, 4}  # the published default


def test_workers_repeat_themselves_with_the_same_seed(train_epoch):
    first, second, other = train_epoch(seed=3), train_epoch(seed=3), train_epoch(seed=4)
    for one, two in zip(first, second, strict=True):
        for images, again in zip(one['inputs']['img'], two['inputs']['img'], strict=True):
            assert torch.equal(images, again)
    by_token = {
        sample.sample_idx: images
        for batch in other
        for images, sample in zip(batch['inputs']['img'], batch['data_samples'], strict=True)
    }
    sample, images = first[0]['data_samples'][0], first[0]['inputs']['img'][0]
    assert not torch.equal(images[-1], by_token[sample.sample_idx][-1])


def test_items_of_8_bits_are_those_of_the_exact_path_to_a_level(build_dataset, base_config):
    """The base config's pipeline against float32 images that are distorted at full size, as published."""
    load, resize, distort, *rest = base_config.train_pipeline
    exact_pipeline = [{**load, 'to_float32': True}, distort, resize, *rest]
    fast, exact = (
        build_dataset(pipeline=pipeline, image_size=(100, 56))
        for pipeline in (base_config.train_pipeline, exact_pipeline)
    )
    preprocessor = BEVFormerDataPreprocessor([0.0] * 3, [1.0] * 3)
    differences = []
    for index in range(12):
        items = [dataset[SeededIndex(index, seed=index)] for dataset in (fast, exact)]
        assert [item['inputs']['img'].dtype for item in items] == [torch.uint8, torch.float32]
        ours, theirs = (preprocessor(pseudo_collate([item])) for item in items)
        differences.append((ours['inputs']['imgs'] - theirs['inputs']['imgs']).abs().mean().item())
        for sample, wanted in zip(ours['data_samples'], theirs['data_samples'], strict=True):
            np.testing.assert_allclose(sample.lidar2img, wanted.lidar2img, rtol=1e-12)
            assert sample.ori_shape == wanted.ori_shape == (112, 200)
            assert sample.img_shape == wanted.img_shape == (56, 100)
    assert np.mean(differences) < 1, differences


@pytest.mark.parametrize(
    ('arguments', 'error', 'message'),
    [
        ({'data_root': '/no/such/root'}, FileNotFoundError, 'no data_root /no/such/root'),
        ({'ann_file': 'no_such.pkl'}, FileNotFoundError, r'no_such.pkl.*create_data.py'),
        ({'metainfo': {'classes': ['car', 'tram']}}, ValueError, 'no class tram: theirs are car, truck'),
        ({'cameras': ['CAM_FRONT', 'CAM_TOP']}, ValueError, r'no camera CAM_TOP .*CAM_BACK_LEFT'),
        ({'cameras': []}, ValueError, 'cameras is empty'),
        ({'image_size': (100, 0)}, ValueError, r'\(width, height\).*\(100, 0\)'),
        ({'image_size': (0.5, 0.5)}, ValueError, r'whole pixels'),
        ({'image_size': 320}, ValueError, r'image_size must be \(width, height\).* not 320'),
        ({'image_size': '320,192'}, ValueError, r"image_size must be \(width, height\).* not '320,192'"),
        ({'queue_length': 0}, ValueError, 'at least 1'),
        ({'queue_length': '3'}, ValueError, "queue_length must be a whole number .* not '3'"),
        ({'cameras': 'CAM_FRONT'}, ValueError, r"not the text 'CAM_FRONT': .* brackets, cameras=\['CAM_FRONT'\]"),
        ({'cameras': [1, 2]}, ValueError, r'cameras must be a list of names, not \[1, 2\]: put names in brackets'),
        ({'metainfo': {'classes': 'car'}}, ValueError, r"brackets, metainfo\.classes=\['car'\]"),
        ({'metainfo': {'classes': 'car, bus'}}, ValueError, r"brackets, metainfo\.classes=\['car', 'bus'\]"),
        ({'metainfo': {'classes': 5}}, ValueError, r'metainfo\.classes must be a list of names, not 5'),
        ({'metainfo': {'classes': []}}, ValueError, r'metainfo\.classes is empty: name at least one'),
        ({'metainfo': 'car'}, ValueError, r"metainfo must be a dict such as dict\(classes=.*not 'car'"),
        ({'ann_file': ['a', 'b.pkl']}, ValueError, r'ann_file must be a text, .*type list; .*"ann_file=\'a,b\.pkl\'"'),
        ({'ann_file': 5}, ValueError, r'ann_file must be a text, not 5 of type int; .*"ann_file=\'5\'"'),
        ({'data_root': ['a', 'b']}, ValueError, r'data_root must be a text, .*"data_root=\'a,b\'"'),
        ({'data_root': None}, ValueError, r'data_root must be a text, not None'),
        ({'test_mode': 'no'}, ValueError, "test_mode must be True or False, not 'no'"),
        (
            {'test_mode': True, 'queue_length': 3},
            ValueError,
            'queue_length is for training, in test_mode it has no eff',
        ),
        ({'test_mode': True, 'frame_offsets': [-1, 0]}, ValueError, 'frame_offsets is for training'),
        (
            {'point_cloud_range': [90, 90, -5, 99, 99, 3]},
            ValueError,
            'no box of the classes car, truck, .* that counts',
        ),
        ({'point_cloud_range': 50}, ValueError, r'point_cloud_range must be \[x, y, z, x, y, z\].* not 50'),
        ({'point_cloud_range': [9, 9, 9, 1, 1, 1]}, ValueError, r'minima and then larger maxima'),
    ],
)
def test_bad_arguments(build_dataset, arguments, error, message):
    with pytest.raises(error, match=message):
        build_dataset(**arguments)


def first_camera(info):
    return info['images']['CAM_FRONT']


@pytest.mark.parametrize('order', [[1, 0, *range(2, 12)], [0, 6, *range(1, 6), *range(7, 12)]])
def test_training_needs_frames_in_time_order(build_dataset, read_infos, order):
    infos = read_infos('mini_train')
    infos['data_list'] = [infos['data_list'][index] for index in order]
    with pytest.raises(ValueError, match='does not hold its frames scene by scene in time order'):
        build_dataset(infos)
    assert len(build_dataset(infos, test_mode=True)) == 12


def test_images_of_another_size_than_the_tables_say_are_refused(build_dataset, read_infos):
    infos = read_infos('mini_train')
    for info in infos['data_list']:
        first_camera(info).update(width=400, height=224)
    with pytest.raises(ValueError, match=r'\(CAM_FRONT\): the calibration is for 400 x 224, the file is 200 x 112'):
        build_dataset(infos)[0]


def test_an_unknown_velocity_is_not_trained_on(build_dataset, read_infos, build_criterion):
    infos = read_infos('mini_train')
    velocities = [[3.0, -1.0], [float('nan'), float('nan')], [0.0, 2.0]]
    instances = infos['data_list'][0]['instances'][:3]
    for instance, velocity in zip(instances, velocities, strict=True):
        instance.update(velocity=velocity, bbox_3d_isvalid=True, num_lidar_pts=5)
    infos['data_list'][0]['instances'] = instances
    limits = [-60.0, -60.0, -5.0, 60.0, 60.0, 3.0]
    targets = build_dataset(infos, point_cloud_range=limits)[0]['data_samples'].gt_instances_3d
    boxes = targets.bboxes_3d.tensor
    np.testing.assert_array_equal(boxes[:, 7:], velocities)
    truth = torch.cat([targets.bboxes_3d.gravity_center, boxes[:, 3:]], dim=1)
    losses, gradient = build_criterion(truth, targets.labels_3d)
    assert losses['loss_bbox'].isfinite()
    assert gradient.isfinite().all()
    assert ((gradient[:, 8:] != 0).all(1)).tolist() == [True, False, True]
    assert (gradient[:, :8] != 0).any(1).all()


@pytest.fixture
def build_criterion():
    """The criterion's losses and gradients when each true box is predicted half a metre, or metre a second, off."""

    def run(truth, labels):
        with DefaultScope.overwrite_default_scope('mmdet3d'):
            criterion = MODELS.build(
                dict(
                    type='SetCriterion3D',
                    assigner=dict(
                        type='HungarianAssigner3D',
                        cls_cost=dict(type='mmdet.FocalLossCost', weight=2.0),
                        reg_cost_weight=0.25,
                    ),
                    loss_cls=dict(type='mmdet.FocalLoss', use_sigmoid=True, loss_weight=2.0),
                    loss_bbox=dict(type='mmdet.L1Loss', loss_weight=0.25),
                    code_weights=[1.0] * 8 + [0.2] * 2,
                )
            )
        boxes = (torch.nan_to_num(normalize_boxes(truth)) + 0.5)[None, None].requires_grad_()
        losses = criterion(torch.zeros(1, 1, len(truth), 10), boxes, [labels], [truth])
        losses['loss_bbox'].backward()
        return losses, boxes.grad[0, 0]

    return run


@pytest.fixture
def infos_with_empty_frames(read_infos):
    """Training infos, two scenes of six frames, in which the frames given have no objects."""

    def make(*empty):
        infos = read_infos('mini_train')
        for index in empty:
            infos['data_list'][index]['instances'] = []
        return infos

    return make


def drawn_queues(dataset, index, seeds=60):
    """Sets of indices of the items that an index gives with different seeds."""
    tokens = {dataset.get_data_info(number)['token']: number for number in range(len(dataset))}
    found = set()
    for seed in range(seeds):
        sample = dataset[SeededIndex(index, seed)]['data_samples']
        again = dataset[SeededIndex(index, seed)]['data_samples']
        queue = [meta['sample_idx'] for meta in (*sample.history, sample.metainfo)]
        assert queue == [meta['sample_idx'] for meta in (*again.history, again.metainfo)]
        found.add(tuple(tokens[token] for token in queue))
    return found


PACK_ONLY = [
    {'type': 'LoadMultiViewImages'},
    {'type': 'LoadAnnotations3D', 'with_bbox_3d': True, 'with_label_3d': True},
    {'type': 'PackTemporalInputs'},
]


def test_items_with_an_empty_frame_are_replaced(build_dataset, infos_with_empty_frames):
    """Frame 2 of the first scene is empty: no queue may hold it, as current frame or as history."""
    arguments = dict(infos=infos_with_empty_frames(2), queue_length=2, cameras=['CAM_FRONT'], pipeline=PACK_ONLY)
    kept = build_dataset(filter_empty_gt=True, **arguments)
    assert len(kept) == 12
    for index in (1, 2, 3, 4):
        queues = drawn_queues(kept, index)
        assert not any(2 in queue for queue in queues)
        own = {queue for queue in queues if queue[-1] == index}
        # Of the two frames before one is dropped.
        assert own == {1: {(0, 1), (1,)}, 2: set(), 3: {(1, 3)}, 4: {(3, 4)}}[index]
        others = {queue[-1] for queue in queues} - {index}
        assert (len(others) > 3) == (index != 1)
    assert any(2 in queue for queue in drawn_queues(build_dataset(**arguments), 3))


def test_what_replaces_an_item_can_be_drawn(build_dataset, infos_with_empty_frames):
    """Without random drop only frames 0 and 6, whose scenes start there, and 7, after it, have full queues."""
    infos = infos_with_empty_frames(1, 3, 5, 8, 10, 11)
    dataset = build_dataset(
        infos, queue_length=2, random_drop=False, filter_empty_gt=True, cameras=['CAM_FRONT'], pipeline=PACK_ONLY
    )
    found = set().union(*(drawn_queues(dataset, index, seeds=15) for index in range(12)))
    assert found == {(0,), (6,), (6, 7)}


@pytest.mark.parametrize(
    'arguments',
    [
        {'point_cloud_range': [300.0, 300.0, -5.0, 310.0, 310.0, 3.0]},
        {'cut': 'history'},
    ],
)
def test_filtering_that_leaves_nothing_is_refused(build_dataset, infos_with_empty_frames, arguments):
    infos = infos_with_empty_frames()
    if arguments.pop('cut', None):  # every frame with boxes has two empty ones before it
        infos = infos_with_empty_frames(0, 1, 3, 4, 6, 7, 9, 10)
        arguments['random_drop'] = False
    with pytest.raises(ValueError, match=r'filter_empty_gt leaves nothing of 12 keyframes, [04] of which have boxes'):
        build_dataset(infos, queue_length=3, filter_empty_gt=True, **arguments)


def test_test_mode_filters_nothing(build_dataset):
    with pytest.raises(ValueError, match='filter_empty_gt is for training'):
        build_dataset(test_mode=True, filter_empty_gt=True)


def test_infos_of_another_format(build_dataset, read_infos):
    infos = read_infos('mini_train')
    infos['metainfo']['dataset'] = 'lyft'
    with pytest.raises(ValueError, match='lyft, not of nuscenes'):
        build_dataset(infos)
