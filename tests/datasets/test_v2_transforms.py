"""Frames at fixed offsets, and what BEVFormerV2's augmentations do to images, calibration, boxes and BEV."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from bevformer_plugin.datasets import ResumableSampler
from bevformer_plugin.errors import InputError
from bevformer_plugin.geometry import BEVGrid, transform_bev
from tests.helpers.info_files import write_infos

RANGE = [-51.2, -51.2, -5.0, 51.2, 51.2, 3.0]
LOAD = {'type': 'LoadMultiViewImages'}
ANNOTATIONS = {'type': 'LoadAnnotations3D', 'with_bbox_3d': True, 'with_label_3d': True}
PACK = {'type': 'PackTemporalInputs'}
CROP, OBJECTS = {'type': 'CropMultiView', 'top': 32}, {'type': 'LoadCameraInstances', 'min_points': 0}
FLIP = {'type': 'RandomFlipMultiView', 'prob': 1.0}
BEV = {'type': 'RandomBEVAugmentation', 'point_cloud_range': RANGE}


def item_of(dataset, index: int = 4, seed: int = 0) -> dict:
    np.random.seed(seed)
    return dataset[index]


@pytest.mark.parametrize('dropped', [(), (2,)])
def test_frames_lie_at_their_offsets(build_dataset, read_infos, dropped):
    infos = read_infos('mini_train')
    infos['data_list'] = [info for number, info in enumerate(infos['data_list']) if number not in dropped]
    dataset = build_dataset(infos, frame_offsets=[-3, -1, 0], pipeline=[])
    for index in range(len(dataset)):
        item = dataset.get_data_info(index)
        present = {info['frame_idx'] for info in infos['data_list'] if info['scene_token'] == item['scene_token']}
        expected = [item['frame_idx'] + offset for offset in (-3, -1) if item['frame_idx'] + offset in present]
        assert [frame['frame_idx'] for frame in item['history']] == expected
        assert {frame['scene_token'] for frame in item['history']} <= {item['scene_token']}


def test_objects_none_of_which_has_enough_points_are_refused(build_dataset, read_infos):
    """As of tables without LiDAR: the perspective head would learn that there are no objects."""
    infos = read_infos('mini_train')
    for entry in infos['data_list']:
        for instance in entry['instances']:
            instance.update(num_lidar_pts=1, num_radar_pts=1)
    pipelines = (
        [LOAD, {'type': 'LoadCameraInstances', **more}, ANNOTATIONS, PACK] for more in ({}, {'min_points': 2})
    )
    with pytest.raises(
        InputError, match=r'min_points=3 LiDAR and radar points, and none of \d+ in .* has more than 2'
    ):
        build_dataset(infos, pipeline=next(pipelines), with_camera_objects=True)
    build_dataset(infos, pipeline=next(pipelines), with_camera_objects=True)


def test_an_item_needs_boxes_in_its_current_frame_only(build_dataset, read_infos):
    infos = read_infos('mini_train')
    infos['data_list'][3]['instances'] = []
    dataset = build_dataset(infos, frame_offsets=[-1, 0], filter_empty_gt=True)
    assert dataset.prepare_data(3) is None
    assert len(dataset.prepare_data(4)['data_samples'].history) == 1


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(frame_offsets=[0, 1]), 'frame_offsets are whole numbers that rise to 0'),
        (dict(frame_offsets=[-1, 0], queue_length=3), 'leave queue_length and random_drop out'),
        (dict(frame_offsets=[-1, 0], random_drop=False), 'leave queue_length and random_drop out'),
        (dict(with_camera_objects='yes'), 'with_camera_objects must be True or False'),
        (dict(pipeline=[{'type': 'CropMultiView', 'top': -1}]), 'top of CropMultiView is a number of rows'),
        (dict(pipeline=[{'type': 'RandomResizeMultiView', 'heights': []}]), 'heights of RandomResizeMultiView'),
        (dict(pipeline=[{'type': 'RandomFlipMultiView', 'prob': 2}]), r'prob of RandomFlipMultiView lies in \[0, 1\]'),
        (dict(pipeline=[{**BEV, 'scales': (1.1, 0.9)}]), 'scales are the smallest and the largest'),
        (dict(pipeline=[{**BEV, 'flip_x_prob': -1}]), r'flip_x_prob and flip_y_prob lie in \[0, 1\]'),
        (dict(pipeline=[{**OBJECTS, 'min_visible': 2}]), r'min_visible of LoadCameraInstances lies in \[0, 1\]'),
    ],
)
def test_settings_that_cannot_be(build_dataset, settings, message):
    with pytest.raises(InputError, match=message):
        build_dataset(**settings)


def test_a_crop_that_leaves_nothing(build_dataset):
    with pytest.raises(InputError, match='top=500 of CropMultiView leaves nothing of an image of 200 x 112 pixels'):
        item_of(build_dataset(pipeline=[LOAD, {'type': 'CropMultiView', 'top': 500}, PACK]))
    with pytest.raises(InputError, match=r'as they are stored, 200 x 112, and .* is 100 x 56 by then'):
        item_of(build_dataset(pipeline=[LOAD, CROP, {'type': 'ResizeMultiView'}, PACK], image_size=(100, 56)))


def test_objects_in_cameras_have_to_be_loaded(build_dataset):
    with pytest.raises(InputError, match='finds no camera_objects: set with_camera_objects=True'):
        item_of(build_dataset(pipeline=[LOAD, OBJECTS, PACK]))


@pytest.mark.parametrize('transform', [CROP, FLIP, {'type': 'RandomResizeMultiView', 'heights': [64]}, OBJECTS])
def test_images_have_to_be_loaded_first(build_dataset, transform):
    dataset = build_dataset(pipeline=[transform, LOAD, PACK], with_camera_objects=True)
    with pytest.raises(InputError, match=f'{transform["type"]} finds no images: put LoadMultiViewImages before it'):
        item_of(dataset)


def test_true_boxes_have_to_be_loaded_before_they_are_moved(build_dataset):
    with pytest.raises(InputError, match='finds no true boxes: put LoadAnnotations3D before it'):
        item_of(build_dataset(pipeline=[LOAD, BEV, ANNOTATIONS, PACK]))


@pytest.mark.parametrize('transform', [CROP, FLIP, {'type': 'RandomResizeMultiView', 'heights': [64]}])
def test_images_stay_as_they_are_once_the_objects_in_them_are_found(build_dataset, transform):
    dataset = build_dataset(pipeline=[LOAD, OBJECTS, transform, ANNOTATIONS, PACK], with_camera_objects=True)
    with pytest.raises(InputError, match=r'after LoadCameraInstances had found .*: put it behind all transforms'):
        item_of(dataset)


@pytest.mark.parametrize(
    ('transforms', 'place'),
    [
        ([CROP], lambda u, v, size: (u, v - 32)),
        ([FLIP], lambda u, v, size: (200 - u, v)),
        ([{'type': 'RandomResizeMultiView', 'heights': [140]}], lambda u, v, size: (u * 250 / 200, v * 140 / 112)),
        (
            [CROP, {'type': 'RandomResizeMultiView', 'heights': [97]}, FLIP],
            lambda u, v, size: (size[0] - u * size[0] / 200, (v - 32) * 97 / 80),
        ),
    ],
)
def test_pixels_and_calibration_move_alike(build_dataset, transforms, place):
    plain = item_of(build_dataset(pipeline=[LOAD, PACK], frame_offsets=[-1, 0]))
    moved = item_of(build_dataset(pipeline=[LOAD, *transforms, PACK], frame_offsets=[-1, 0]))
    height, width = moved['inputs']['img'].shape[-2:]
    points = np.random.default_rng(0).uniform([-30, -30, -3, 1], [30, 30, 3, 1], (200, 4))
    metas = [[*item['data_samples'].history, item['data_samples'].metainfo] for item in (plain, moved)]
    for before, after in zip(*metas, strict=True):
        for camera in range(6):
            u, v, depth, _ = before['lidar2img'][camera] @ points.T
            expected = place(u / depth, v / depth, (width, height))
            u, v, own, _ = after['lidar2img'][camera] @ points.T
            np.testing.assert_allclose(own, depth)
            np.testing.assert_allclose([u / own, v / own], expected, rtol=1e-6, atol=1e-6)
    first = plain['inputs']['img'].float(), moved['inputs']['img'].float()
    if transforms == [CROP]:
        assert torch.equal(first[0][..., 32:, :], first[1])
    if transforms == [FLIP]:
        assert torch.equal(first[0].flip(-1), first[1])


def test_boxes_and_bev_move_alike(build_dataset):
    """Whatever is drawn, a blob at the place of a box is, in the moved BEV, at the place of the moved box."""
    plain = build_dataset(pipeline=[LOAD, ANNOTATIONS, PACK], point_cloud_range=RANGE)
    moved = build_dataset(pipeline=[LOAD, ANNOTATIONS, BEV, PACK], point_cloud_range=RANGE)
    grid = BEVGrid(64, 64, tuple(RANGE))
    cells = torch.stack(
        torch.meshgrid(torch.arange(64), torch.arange(64), indexing='ij')[::-1], dim=-1
    ) * grid.cell_x + torch.tensor([grid.cell_x / 2 - 51.2] * 2)  # HxWx2, x and y
    seen = set()
    for seed in range(8):
        before = item_of(plain, 4, seed)['data_samples'].gt_instances_3d.bboxes_3d
        sample = item_of(moved, 4, seed)['data_samples']
        after, matrix = sample.gt_instances_3d.bboxes_3d, torch.as_tensor(sample.bev_augmentation)
        seen.add((bool(torch.det(matrix) < 0), bool(matrix[0, 0] < 0)))
        inside = ((before.tensor[:, :2] @ matrix.T.float()).abs() < 51.2).all(1)
        assert inside.sum() == len(after)
        blobs = (-(cells[None] - before.tensor[inside, None, None, :2]).square().sum(-1) / 8).exp()  # nxHxW
        maps = transform_bev(blobs.flatten(1)[..., None], matrix.expand(len(blobs), 2, 2), grid)[..., 0]
        found = cells.flatten(0, 1)[maps.argmax(1)]
        assert (found - after.tensor[:, :2]).abs().max() < 1.5 * grid.cell_x
        forward = torch.stack([before.yaw[inside].cos(), before.yaw[inside].sin()], dim=1) @ matrix.T.float()
        own = torch.stack([after.yaw.cos(), after.yaw.sin()], dim=1)
        torch.testing.assert_close(torch.nn.functional.normalize(forward, dim=1), own, atol=1e-4, rtol=0)
        speed = before.tensor[inside, 7:9] @ matrix.T.float()
        torch.testing.assert_close(speed, after.tensor[:, 7:9], atol=1e-4, rtol=0, equal_nan=True)
    assert len(seen) == 4  # mirrored or not, to either side


@pytest.mark.parametrize(
    'transforms', [[], [CROP], [CROP, FLIP], [{'type': 'RandomResizeMultiView', 'heights': [140]}]]
)
def test_objects_in_cameras_are_those_in_space(build_dataset, transforms):
    dataset = build_dataset(pipeline=[LOAD, *transforms, OBJECTS, ANNOTATIONS, PACK], with_camera_objects=True)
    item = item_of(dataset)
    sample = item['data_samples']
    found, boxes = sample.gt_camera_instances, sample.gt_instances_3d.bboxes_3d
    height, width = item['inputs']['img'].shape[-2:]
    assert len(found) > 5
    centers = torch.cat([boxes.gravity_center, torch.ones(len(boxes), 1)], dim=1).double()
    for index in range(len(found)):
        camera = int(found.cameras[index])
        intrinsics = torch.as_tensor(sample.camera_intrinsics[camera]).double()
        assert intrinsics[0, 0] > 0
        quaternion, center, wlh = found.boxes3d[index].double().split([4, 3, 3])
        pixel = intrinsics @ center
        candidates = (torch.as_tensor(sample.lidar2img[camera]) @ centers.T)[:3].T
        near = (candidates - pixel).abs().amax(1)
        match = int(near.argmin())
        assert near[match] < 1e-2 * width  # the same pixel and depth
        assert int(found.labels[index]) == int(sample.gt_instances_3d.labels_3d[match])
        torch.testing.assert_close(wlh.float(), boxes.dims[match][[1, 0, 2]], atol=1e-4, rtol=0)
        speed = boxes.tensor[match, 7:9].norm()
        torch.testing.assert_close(found.speeds[index], speed, equal_nan=True)
        # The rotation brings the box's own corners to where the camera sees those of the box in space.
        w, x, y, z = quaternion.tolist()
        signs = np.array(np.meshgrid([-0.5, 0.5], [-0.5, 0.5], [-0.5, 0.5])).reshape(3, -1).T
        corners = signs * wlh.numpy()[[1, 0, 2]] @ Rotation.from_quat([x, y, z, w]).as_matrix().T + center.numpy()
        seen = np.concatenate([boxes.corners[match].numpy(), np.ones((8, 1))], axis=1) @ sample.lidar2img[camera].T
        distance = np.abs((corners @ intrinsics.numpy().T)[:, None] - seen[:, :3]).max(-1)
        assert distance.min(1).max() < 0.02 * width
        x1, y1, x2, y2 = found.boxes2d[index].tolist()
        assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
    assert set(found.attributes.tolist()) <= {0, 1, 2, 3} and len(set(found.attributes.tolist())) > 1


def test_a_seed_decides_about_all_augmentations(build_dataset):
    dataset = build_dataset(
        pipeline=[
            LOAD,
            CROP,
            {'type': 'RandomResizeMultiView', 'heights': [64, 80, 97]},
            {**FLIP, 'prob': 0.5},
            ANNOTATIONS,
            BEV,
            PACK,
        ],
        frame_offsets=[-1, 0],
    )
    first, second = (list(ResumableSampler(dataset, seed=3)) for _ in range(2))
    for one, other in zip(first[:3], second[:3], strict=True):
        ours, theirs = dataset[one], dataset[other]
        assert torch.equal(ours['inputs']['img'], theirs['inputs']['img'])
        matrices = [item['data_samples'].bev_augmentation for item in (ours, theirs)]
        np.testing.assert_array_equal(*matrices)


def test_infos_without_details_of_objects(build_dataset, read_infos, tmp_path):
    """Older formats have no attributes; such objects have none."""
    infos = read_infos('mini_train')
    for info in infos['data_list']:
        for instance in info['instances']:
            instance['attribute'] = ''
    path = write_infos(tmp_path / 'plain.pkl', infos)
    assert path.is_file()
    dataset = build_dataset(infos, pipeline=[LOAD, OBJECTS, ANNOTATIONS, PACK], with_camera_objects=True)
    assert set(item_of(dataset)['data_samples'].gt_camera_instances.attributes.tolist()) == {3}
