"""Normalisation, padding and alignment of frame queues."""

import pytest
import torch
from mmdet3d.structures import Det3DDataSample

from bevformer_plugin.models import BEVFormerDataPreprocessor

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


def make_batch(*shapes: tuple) -> dict:
    queues = [
        torch.randint(256, (length, cameras, 3, height, width), dtype=torch.uint8)
        for length, cameras, height, width in shapes
    ]
    samples = [
        Det3DDataSample(metainfo=dict(scene_token='a', history=[dict(scene_token='a')] * (len(queue) - 1)))
        for queue in queues
    ]
    return dict(inputs=dict(img=queues), data_samples=samples)


def test_normalises_in_the_order_of_the_backbone():
    data = make_batch((1, 2, 32, 64))
    pixel = data['inputs']['img'][0][0, 1, :, 5, 7].float()  # BGR
    imgs = BEVFormerDataPreprocessor(MEAN, STD, bgr_to_rgb=True)(data)['inputs']['imgs']
    torch.testing.assert_close(imgs[0, 0, 1, :, 5, 7], (pixel.flip(0) - torch.tensor(MEAN)) / torch.tensor(STD))
    imgs = BEVFormerDataPreprocessor(MEAN[::-1], [1.0] * 3)(data)['inputs']['imgs']
    torch.testing.assert_close(imgs[0, 0, 1, :, 5, 7], pixel - torch.tensor(MEAN[::-1]))
    assert imgs.dtype == torch.float32


def test_8_bits_stand_for_the_range_given():
    data = make_batch((2, 2, 32, 64), (1, 2, 32, 64))
    ranges = [
        torch.tensor([[[0.0, 255.0], [-40.0, 470.0]], [[-51.0, 255.0], [0.0, 510.0]]]),
        torch.tensor([[[-10.0, 265.0], [0.0, 255.0]]]),
    ]
    pixels = [queue.double() for queue in data['inputs']['img']]
    plain = BEVFormerDataPreprocessor(MEAN, STD, bgr_to_rgb=True)(data)['inputs']['imgs']
    data['inputs']['img_range'] = ranges
    imgs = BEVFormerDataPreprocessor(MEAN, STD, bgr_to_rgb=True)(data)['inputs']['imgs']
    for queue, limits, given in zip(pixels, ranges, imgs, strict=True):
        for frame in range(len(queue)):
            for camera in range(2):
                low, high = limits[frame, camera].double()
                values = (low + queue[frame, camera] * (high - low) / 255).flip(0)
                expected = (values - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
                torch.testing.assert_close(given[frame - len(queue), camera].double(), expected, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(imgs[0, 0, 0], plain[0, 0, 0])
    assert imgs[1, 0].abs().max() == 0


def test_pads_right_and_bottom_and_aligns_at_the_end():
    data = make_batch((3, 2, 45, 80), (1, 2, 40, 97))
    out = BEVFormerDataPreprocessor(MEAN, STD, bgr_to_rgb=True)(data)
    imgs = out['inputs']['imgs']
    assert imgs.shape == (2, 3, 2, 3, 64, 128)
    assert imgs[0, :, :, :, 45:].abs().max() == 0
    assert imgs[0, :, :, :, :, 80:].abs().max() == 0
    assert imgs[1, :2].abs().max() == 0
    assert imgs[1, 2, :, :, :40, :97].abs().min() > 0
    for sample, own in zip(out['data_samples'], [(64, 96), (64, 128)], strict=True):
        assert sample.pad_shape == own
        assert all(meta['pad_shape'] == own for meta in sample.history)


def test_leaves_its_input_alone():
    data = make_batch((1, 2, 32, 64))
    data['inputs']['img'][0] = data['inputs']['img'][0].float()
    before = data['inputs']['img'][0].clone()
    BEVFormerDataPreprocessor(MEAN, STD, bgr_to_rgb=True)(data)
    assert torch.equal(data['inputs']['img'][0], before)


def test_refuses_what_does_not_fit():
    preprocessor = BEVFormerDataPreprocessor(MEAN, STD)
    with pytest.raises(ValueError, match=r'different numbers of cameras: \[2, 3\]'):
        preprocessor(make_batch((1, 2, 32, 32), (1, 3, 32, 32)))
    data = make_batch((3, 2, 32, 32))
    data['data_samples'][0].set_metainfo({'history': []})
    with pytest.raises(ValueError, match='a queue of 3 frames came with metas of 0 history frames'):
        preprocessor(data)
