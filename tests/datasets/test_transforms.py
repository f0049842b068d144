"""Transforms on small images and on damaged files."""
import cv2
import numpy as np
import pytest
import torch
from mmdet3d.datasets.transforms import PhotoMetricDistortion3D

from bevformer_plugin.datasets import (
    LoadMultiViewImages,
    PackTemporalInputs,
    PhotoMetricDistortionMultiView,
    ResizeMultiView,
)

CAMERAS = ('CAM_FRONT', 'CAM_BACK')
LIDAR2IMG = np.array([[100.0, 50.0, 1.0, 2.0], [3.0, 60.0, -100.0, 4.0], [0.1, 1.0, 0.2, -0.5], [0.0, 0.0, 0.0, 1.0]])


def image(seed=0, width=40, height=24):
    noise = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR)


@pytest.fixture
def item(tmp_path):
    """A queue of two frames of two cameras, as the dataset gives it to the pipeline."""
    frames = []
    for number in range(2):
        images = {}
        for camera, name in enumerate(CAMERAS):
            path = tmp_path / f'{name}_{number}.jpg'
            cv2.imwrite(str(path), image(10 * number + camera))
            images[name] = {'img_path': str(path), 'lidar2img': LIDAR2IMG + camera}
        frames.append({'token': f'token{number}', 'images': images, 'scale': None})
    return {**frames[1], 'history': frames[:1]}


def loaded(*images, scale=None):
    """A single loaded frame."""
    return {'img': list(images), 'lidar2img': np.stack([LIDAR2IMG] * len(images)), 'scale': scale, 'history': []}


def test_loading_reads_all_frames_as_stored(item):
    results = LoadMultiViewImages()(item)
    for frame in (results, *results['history']):
        assert frame['cameras'] == list(CAMERAS)
        assert frame['ori_shape'] == (24, 40)
        np.testing.assert_array_equal(frame['lidar2img'], [LIDAR2IMG, LIDAR2IMG + 1])
        for path, pixels in zip(frame['img_paths'], frame['img'], strict=True):
            assert pixels.dtype == np.uint8
            np.testing.assert_array_equal(pixels, cv2.imread(path))


def test_loading_as_float(item):
    pixels = LoadMultiViewImages(to_float32=True)(item)['img'][1]
    assert pixels.dtype == np.float32
    np.testing.assert_array_equal(pixels, cv2.imread(item['img_paths'][1]))


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (lambda content: b'', 'not a readable image'),
        (lambda content: b'<html>not found</html>', 'not a readable image'),
        (lambda content: content[: len(content) // 2], 'is cut short'),
        (lambda content: content[:100], 'is cut short'),
    ],
)
def test_damaged_images_are_named(item, tmp_path, damage, message):
    path = tmp_path / 'CAM_BACK_0.jpg'
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=rf'CAM_BACK_0\.jpg of sample token0 .*{message}'):
        LoadMultiViewImages()(item)


def test_missing_images_are_named(item, tmp_path):
    (tmp_path / 'CAM_FRONT_1.jpg').unlink()
    with pytest.raises(FileNotFoundError, match=r'CAM_FRONT_1\.jpg of sample token1'):
        LoadMultiViewImages()(item)


def test_real_images_are_not_taken_for_damaged(shared_dir):
    paths = sorted(shared_dir.glob('real/nuscenes/samples/CAM_FRONT/*.jpg'))
    images = {path.name: {'img_path': str(path), 'lidar2img': LIDAR2IMG} for path in paths}
    results = LoadMultiViewImages()({'token': '', 'images': images, 'history': []})
    assert [pixels.shape for pixels in results['img']] == 5 * [(900, 1600, 3)]


def test_resize_scales_pixels_and_projection():
    wide, narrow = image(1), image(2, width=32, height=48)
    results = ResizeMultiView()(loaded(wide, narrow, scale=(20, 12)))
    np.testing.assert_array_equal(results['img'][0], cv2.resize(wide, (20, 12), interpolation=cv2.INTER_LINEAR))
    np.testing.assert_array_equal(results['img'][1], cv2.resize(narrow, (20, 12), interpolation=cv2.INTER_LINEAR))
    point = np.array([1.0, 12.0, 0.3, 1.0])
    stored = LIDAR2IMG @ point
    for lidar2img, scaling in zip(results['lidar2img'], [(0.5, 0.5), (20 / 32, 12 / 48)], strict=True):
        scaled = lidar2img @ point
        np.testing.assert_allclose(scaled[:2] / scaled[2], stored[:2] / stored[2] * scaling, rtol=1e-12)
        assert scaled[2] == stored[2]


@pytest.mark.parametrize('scale', [None, (40, 24)])
def test_resize_leaves_what_has_the_size(scale):
    pixels = image()
    results = ResizeMultiView()(loaded(pixels, scale=scale))
    assert results['img'][0] is pixels
    np.testing.assert_array_equal(results['lidar2img'], [LIDAR2IMG])


def test_photometric_distortion_is_that_of_mmdet3d_image_by_image():
    frames = loaded(image(1), image(1).astype(np.float32), image(2))
    frames['history'] = [loaded(image(3))]
    np.random.seed(5)
    results = PhotoMetricDistortionMultiView()(frames)
    np.random.seed(5)
    reference = PhotoMetricDistortion3D()
    expected = [reference({'img': image(seed)})['img'] for seed in (3, 1, 1, 2)]
    assert not np.array_equal(expected[1], expected[2])
    given = results['history'][0]['img'] + results['img']
    assert [pixels.dtype for pixels in given] == [np.uint8, np.uint8, np.float32, np.uint8]
    np.testing.assert_array_equal(given[2], expected[2])
    for index in (0, 1, 3):
        np.testing.assert_array_equal(given[index], np.clip(np.rint(expected[index]), 0, 255))


def test_photometric_distortion_stays_within_its_ranges():
    np.random.seed(0)
    grey = np.full((8, 8, 3), 100, dtype=np.uint8)
    values = [PhotoMetricDistortionMultiView()(loaded(grey))['img'][0].mean() for _ in range(300)]
    assert min(values) >= 0.5 * (100 - 32) - 1
    assert max(values) <= 1.5 * (100 + 32) + 1
    assert np.isclose(values, 100).sum() > 40
    assert np.ptp(values) > 60


@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
def test_packing(dtype):
    frames = [loaded(*(image(10 * time + camera).astype(dtype) for camera in range(2))) for time in range(3)]
    for time, frame in enumerate(frames):
        frame.update(
            token=f'token{time}', scene_token='scene', scene_name='scene-0001', frame_idx=time, timestamp=time / 2,
            lidar2ego=np.eye(4), ego2global=np.eye(4), can_bus=np.full(18, time), cameras=list(CAMERAS),
            img_paths=['a.jpg', 'b.jpg'], ori_shape=(48, 80))
    results = {
        **frames[2], 'history': frames[:2], 'box_type_3d': 'boxes', 'box_mode_3d': 'mode',
        'gt_bboxes_3d': torch.zeros(3, 9), 'gt_labels_3d': np.array([2, 0, 1]),
    }
    packed = PackTemporalInputs()(results)
    expected = np.stack([[pixels.transpose(2, 0, 1) for pixels in frame['img']] for frame in frames])
    np.testing.assert_array_equal(packed['inputs']['img'].numpy(), expected)
    assert packed['inputs']['img'].is_contiguous()
    sample = packed['data_samples']
    assert (sample.sample_idx, sample.img_shape, sample.ori_shape) == ('token2', (24, 40), (48, 80))
    assert [meta['sample_idx'] for meta in sample.history] == ['token0', 'token1']
    assert [meta['can_bus'][0] for meta in sample.history] == [0, 1]
    assert all(meta['box_mode_3d'] == 'mode' for meta in sample.history)
    assert sample.gt_instances_3d.labels_3d.tolist() == [2, 0, 1]


def test_images_of_different_size_cannot_be_packed():
    frame = {**loaded(image(), image(width=32)), 'token': 'token0'}
    with pytest.raises(ValueError, match=r'token0 .*\(32 x 24, 40 x 24\): set image_size'):
        PackTemporalInputs()._stack([frame])
