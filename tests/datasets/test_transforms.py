"""Transforms on small images and on damaged files."""

import os
import threading

import cv2
import numpy as np
import pytest
import torch
from mmdet3d.datasets.transforms import PhotoMetricDistortion3D
from PIL import Image

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


@pytest.mark.parametrize('scale', [None, (20, 12)])
def test_loading_as_float_is_exact(item, scale):
    item['scale'] = scale
    pixels = LoadMultiViewImages(to_float32=True)(item)['img'][1]
    assert pixels.dtype == np.float32
    np.testing.assert_array_equal(pixels, cv2.imread(item['img_paths'][1]))


@pytest.mark.parametrize('scale', [(20, 12), (20, 24), (10, 6), (32, 20)])
def test_loading_halves_what_is_twice_as_large(item, scale):
    item['scale'] = scale
    results = LoadMultiViewImages()(item)
    halved = scale == (20, 12)
    assert results['ori_shape'] == (24, 40)
    point = np.array([1.0, 12.0, 0.3, 1.0])
    for camera, (path, pixels, lidar2img) in enumerate(
        zip(results['img_paths'], results['img'], results['lidar2img'], strict=True)
    ):
        stored = cv2.imread(path)
        expected = cv2.resize(stored, (20, 12), interpolation=cv2.INTER_LINEAR) if halved else stored
        assert pixels.shape == expected.shape
        # Coloured noise, four pixels wide, is harsher than photographs; a shift of half a pixel gives 15.
        assert np.abs(pixels.astype(float) - expected).mean() < (6 if halved else 1e-9)
        projected, unscaled = lidar2img @ point, (LIDAR2IMG + camera) @ point
        np.testing.assert_allclose(projected[:2], unscaled[:2] * (0.5 if halved else 1), rtol=1e-12)
        assert projected[2] == unscaled[2]


def test_only_jpegs_are_halved(item, tmp_path):
    for number, camera in enumerate(item['images'].values()):
        camera['img_path'] = str(tmp_path / f'{number}.png')
        cv2.imwrite(camera['img_path'], image(number))
    item['scale'] = (20, 12)
    np.testing.assert_array_equal(LoadMultiViewImages()(item)['img'][1], image(1))


@pytest.mark.parametrize('to_float32', [False, True])
@pytest.mark.parametrize('scale', [(160, 96), (256, 154), (80, 48)])
@pytest.mark.parametrize('centre', [(100.0, 80.0), (211.3, 47.6), (30.75, 160.25)])
def test_a_dot_stays_where_the_projection_says(tmp_path, to_float32, scale, centre):
    """A round dot on 320 x 192 pixels; pixel (i, j) covers [i, i + 1] x [j, j + 1]."""
    columns, rows = np.arange(320) + 0.5, np.arange(192) + 0.5
    dot = np.exp(-((columns - centre[0]) ** 2 + (rows[:, None] - centre[1]) ** 2) / (2 * 6**2))
    path = tmp_path / 'dot.jpg'
    cv2.imwrite(str(path), np.repeat(np.rint(230 * dot)[..., None], 3, axis=2), [cv2.IMWRITE_JPEG_QUALITY, 95])
    lidar2img = np.array([[300.0, 0, 160, 0], [0, 300.0, 96, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    depth = 20.0
    point = [(centre[0] - 160) / 300 * depth, (centre[1] - 96) / 300 * depth, depth, 1.0]
    results = ResizeMultiView()(
        LoadMultiViewImages(to_float32=to_float32)(
            {
                'token': '',
                'images': {'CAM_FRONT': {'img_path': str(path), 'lidar2img': lidar2img}},
                'scale': scale,
                'history': [],
            }
        )
    )
    pixels = results['img'][0][..., 1].astype(float)
    assert pixels.shape == scale[::-1]
    pixels = np.maximum(pixels - 10, 0)  # without what JPEG leaves in the background
    found = [(np.arange(size) + 0.5) @ pixels.sum(axis) / pixels.sum() for axis, size in enumerate(scale)]
    projected = results['lidar2img'][0] @ point
    np.testing.assert_allclose(found, projected[:2] / projected[2], atol=0.03)


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


def noise(height=90, width=160):
    """An image whose JPEG has much data."""
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)


def overwritten(content, size, fill):
    """The file with ``size`` bytes in its middle replaced by those of ``fill``."""
    middle = len(content) // 2
    return content[:middle] + fill(size) + content[middle + size :]


@pytest.mark.parametrize('scale', [None, (160, 90)])
@pytest.mark.parametrize('flags', [[], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 4]])
@pytest.mark.parametrize(
    'damage',
    [
        lambda content: overwritten(content, 512, bytes),
        lambda content: overwritten(content, 512, lambda size: b'\xff' * size),
        lambda content: overwritten(content, 512, np.random.default_rng(0).bytes),
        lambda content: overwritten(content, 512, lambda size: content[900 : 900 + size]),
        lambda content: content[: len(content) // 2] + content[len(content) // 2 + 512 :],
    ],
)
def test_jpegs_damaged_inside_are_refused(tmp_path, capfd, damage, flags, scale):
    content = cv2.imencode('.jpg', image(0, 320, 180), flags)[1].tobytes()
    path = tmp_path / 'front.jpg'
    item = {
        'token': 'token0',
        'images': {'CAM_FRONT': {'img_path': str(path), 'lidar2img': LIDAR2IMG}},
        'scale': scale,
        'history': [],
    }
    path.write_bytes(content)
    assert LoadMultiViewImages()(item)['img'][0].shape == ((90, 160, 3) if scale else (180, 320, 3))
    path.write_bytes(damage(content))
    with pytest.raises(
        ValueError, match=r'front\.jpg of sample token0 \(CAM_FRONT\) is (damaged \(.*JPEG|not a readable)'
    ):
        LoadMultiViewImages()(item)
    assert capfd.readouterr().err == ''


def with_thumbnail(content):
    """The JPEG with a whole small one in a segment of its header, as cameras write it."""
    thumbnail = cv2.imencode('.jpg', image())[1].tobytes()
    segment = b'Exif\0\0' + thumbnail
    return content[:2] + b'\xff\xe1' + (len(segment) + 2).to_bytes(2, 'big') + segment + content[2:]


def test_the_end_of_a_thumbnail_is_not_that_of_the_picture(item, tmp_path):
    path = tmp_path / 'CAM_BACK_0.jpg'
    whole = with_thumbnail(path.read_bytes())
    path.write_bytes(whole + b'appended')
    np.testing.assert_array_equal(LoadMultiViewImages()(item)['history'][0]['img'][1], cv2.imread(str(path)))
    for cut in (len(whole) - 2, len(whole) - 100):
        for padding in (b'', bytes(4096)):
            path.write_bytes(whole[:cut] + padding)
            with pytest.raises(ValueError, match=r'CAM_BACK_0\.jpg of sample token0 \(CAM_BACK\) is cut short'):
                LoadMultiViewImages()(item)


def test_standard_error_of_others_is_passed_on(item, capfd):
    """Threads that write while images are decoded lose nothing, and what they write is no damage."""
    stop = threading.Event()
    lines = 0

    def write():
        nonlocal lines
        while not stop.is_set():
            os.write(2, b'a line of another thread\n')
            lines += 1

    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(20):
        LoadMultiViewImages()(item)
    stop.set()
    writer.join()
    LoadMultiViewImages()(item)  # passes on a write that ended after the last image
    assert capfd.readouterr().err == lines * 'a line of another thread\n'


def one_image(path, content, **of_camera):
    """An item of one camera whose file has the given content."""
    path.write_bytes(content)
    images = {'CAM_FRONT': {'img_path': str(path), 'lidar2img': LIDAR2IMG, **of_camera}}
    return {'token': 'token0', 'images': images, 'scale': None, 'history': []}


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (lambda content: content[: len(content) // 2], 'is not a readable image'),
        (lambda content: content[:-12], 'is not a readable image'),
        (lambda content: overwritten(content, 1, lambda size: b'\0'), 'is not a readable image'),
        (lambda content: overwritten(content, 512, bytes), 'is not a readable image'),
    ],
)
def test_damaged_pngs_are_refused(tmp_path, damage, message):
    content = cv2.imencode('.png', noise())[1].tobytes()
    item = one_image(tmp_path / 'a.png', content)
    np.testing.assert_array_equal(LoadMultiViewImages()(item)['img'][0], noise())
    with pytest.raises(ValueError, match=rf'a\.png of sample token0 \(CAM_FRONT\) {message}'):
        LoadMultiViewImages()(one_image(tmp_path / 'a.png', damage(content)))


@pytest.mark.parametrize('ending', ['.png', '.tiff'])
def test_images_of_16_bits_are_refused(tmp_path, ending):
    content = cv2.imencode(ending, noise().astype(np.uint16) * 16)[1].tobytes()
    with pytest.raises(ValueError, match=r'has 16 bits per colour \(largest value 4080\), images have 8: scale it'):
        LoadMultiViewImages()(one_image(tmp_path / f'a{ending}', content))


@pytest.mark.parametrize('ending', ['.jpg', '.png'])
def test_grey_images_have_three_equal_channels(tmp_path, ending):
    grey = image()[..., 0]
    content = cv2.imencode(ending, grey)[1].tobytes()
    pixels = LoadMultiViewImages()(one_image(tmp_path / 'grey', content))['img'][0]
    assert pixels.shape == (24, 40, 3)
    assert (pixels == pixels[..., :1]).all()
    assert np.abs(pixels[..., 0].astype(int) - grey).mean() < 5


def test_alpha_counts_where_something_is_transparent(tmp_path):
    pixels = np.dstack([noise(), np.full((90, 160), 255, np.uint8)])
    item = one_image(tmp_path / 'a.png', cv2.imencode('.png', pixels)[1].tobytes())
    np.testing.assert_array_equal(LoadMultiViewImages()(item)['img'][0], noise())
    pixels[3, 4, 3] = 254
    with pytest.raises(ValueError, match='is transparent in places'):
        LoadMultiViewImages()(one_image(tmp_path / 'a.png', cv2.imencode('.png', pixels)[1].tobytes()))


def test_cmyk_is_refused(tmp_path):
    Image.fromarray(noise()).convert('CMYK').save(tmp_path / 'a.jpg')
    item = one_image(tmp_path / 'a.jpg', (tmp_path / 'a.jpg').read_bytes())
    with pytest.raises(ValueError, match='has 4 colour components, as of CMYK'):
        LoadMultiViewImages()(item)


def test_folders_are_not_images(tmp_path):
    item = one_image(tmp_path / 'a.jpg', b'')
    item['images']['CAM_FRONT']['img_path'] = str(tmp_path)
    with pytest.raises(ValueError, match=r'of sample token0 \(CAM_FRONT\) cannot be read: Is a directory'):
        LoadMultiViewImages()(item)


@pytest.mark.parametrize('ending', ['.jpg', '.png'])
def test_a_size_that_the_calibration_is_not_for_is_refused(tmp_path, ending):
    content = cv2.imencode(ending, noise(45, 80))[1].tobytes()
    item = one_image(tmp_path / 'a', content, width=80, height=45)
    assert LoadMultiViewImages()(item)['ori_shape'] == (45, 80)
    for size in ({'width': 160, 'height': 90}, {'width': 45, 'height': 80}):
        message = rf'\(CAM_FRONT\): the calibration is for {size["width"]} x {size["height"]}, the file is 80 x 45'
        with pytest.raises(ValueError, match=message):
            LoadMultiViewImages()(one_image(tmp_path / 'a', content, **size))


def test_missing_images_are_named(item, tmp_path):
    (tmp_path / 'CAM_FRONT_1.jpg').unlink()
    with pytest.raises(FileNotFoundError, match=r'CAM_FRONT_1\.jpg of sample token1'):
        LoadMultiViewImages()(item)


def test_real_images_are_not_taken_for_damaged(shared_dir):
    paths = sorted(shared_dir.glob('real/nuscenes/samples/CAM_FRONT/*.jpg'))
    images = {path.name: {'img_path': str(path), 'lidar2img': LIDAR2IMG} for path in paths}
    results = LoadMultiViewImages()({'token': '', 'images': images, 'scale': None, 'history': []})
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


def in_levels(frame):
    """The values that the uint8 images of a distorted frame stand for."""
    return [
        low + (high - low) / 255 * pixels.astype(np.float64)
        for pixels, (low, high) in zip(frame['img'], frame['img_range'], strict=True)
    ]


def test_photometric_distortion_is_that_of_mmdet3d_image_by_image():
    reference, outside = PhotoMetricDistortion3D(), 0
    for seed in range(20):
        frames = {
            dtype: {
                **loaded(*(image(number).astype(dtype) for number in (1, 1, 2))),
                'history': [loaded(image(3).astype(dtype))],
            }
            for dtype in (np.uint8, np.float32)
        }
        for frame in frames.values():
            np.random.seed(seed)
            PhotoMetricDistortionMultiView()(frame)
        np.random.seed(seed)
        expected = [reference({'img': image(number)})['img'] for number in (3, 1, 1, 2)]
        assert not np.array_equal(expected[1], expected[2])
        exact = frames[np.float32]['history'][0]['img'] + frames[np.float32]['img']
        np.testing.assert_array_equal(exact, expected)
        for frame, wanted in zip(
            (*frames[np.uint8]['history'], frames[np.uint8]), (expected[:1], expected[1:]), strict=True
        ):
            assert {pixels.dtype for pixels in frame['img']} == {np.dtype(np.uint8)}
            for values, (low, high), pixels in zip(in_levels(frame), frame['img_range'], wanted, strict=True):
                assert low <= 0 and high >= 255
                np.testing.assert_allclose(values, pixels, atol=0.501 * (high - low) / 255)
                outside += (pixels < -1).any() or (pixels > 256).any()
    assert outside > 10


def test_photometric_distortion_stays_within_its_ranges():
    np.random.seed(0)
    grey = np.full((8, 8, 3), 100, dtype=np.uint8)
    values = [in_levels(PhotoMetricDistortionMultiView()(loaded(grey)))[0].mean() for _ in range(300)]
    assert min(values) >= 0.5 * (100 - 32) - 1
    assert max(values) <= 1.5 * (100 + 32) + 1
    assert np.isclose(values, 100).sum() > 40
    assert np.ptp(values) > 60


@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
def test_packing(dtype):
    frames = [loaded(*(image(10 * time + camera).astype(dtype) for camera in range(2))) for time in range(3)]
    for time, frame in enumerate(frames):
        frame.update(
            token=f'token{time}',
            scene_token='scene',
            scene_name='scene-0001',
            frame_idx=time,
            timestamp=time / 2,
            lidar2ego=np.eye(4),
            ego2global=np.eye(4),
            can_bus=np.full(18, time),
            cameras=list(CAMERAS),
            img_paths=['a.jpg', 'b.jpg'],
            ori_shape=(48, 80),
        )
    results = {
        **frames[2],
        'history': frames[:2],
        'box_type_3d': 'boxes',
        'box_mode_3d': 'mode',
        'gt_bboxes_3d': torch.zeros(3, 9),
        'gt_labels_3d': np.array([2, 0, 1]),
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
