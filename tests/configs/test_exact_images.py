"""One switch gives the images of the published code, decoded at full size and kept in float32."""

import cv2
import numpy as np
import pytest
from mmdet3d.registry import DATASETS

from bevformer_plugin.configuration import load_config
from tests.helpers.repository import CONFIGS

TINY = CONFIGS / 'bevformer_tiny.py'
SWITCH = 'test_dataloader.dataset.pipeline.0.to_float32'  # as --cfg-options of any tool takes it


@pytest.mark.parametrize('image_size', [(100, 56), (160, 90)])  # half of the world's, as tiny's, and another part
def test_exact_images_of_published_checkpoints(synthetic_root, info_files, image_size):
    files = {'data_root': str(synthetic_root), 'ann_file': str(info_files['mini_val']), 'image_size': image_size}
    fast, exact = (
        DATASETS.build({**load_config(str(TINY), options).test_dataloader.dataset, **files})
        for options in ({}, {SWITCH: True})
    )
    paths = [image['img_path'] for image in exact.get_data_info(0)['images'].values()]
    expected = np.stack([cv2.resize(cv2.imread(path).astype(np.float32), image_size) for path in paths])  # NxHxWx3
    images = exact[0]['inputs']['img'][-1].permute(0, 2, 3, 1).numpy()
    assert images.dtype == np.float32 and np.array_equal(images, expected)
    rounded = fast[0]['inputs']['img'][-1].permute(0, 2, 3, 1).numpy()
    assert rounded.dtype == np.uint8
    assert 0 < np.abs(rounded - expected).mean() < 2
