"""What a worker process raises is one line for the user."""

import cv2
import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from bevformer_plugin.datasets import LoadMultiViewImages
from bevformer_plugin.errors import InputError
from bevformer_plugin.training.worker_errors import message_of


class OneImage(Dataset):
    """Loads one image file."""

    def __init__(self, path: str) -> None:
        self.images = {'CAM_FRONT': {'img_path': path, 'lidar2img': np.eye(4)}}

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> dict:
        return LoadMultiViewImages()({'token': 'token0', 'images': self.images, 'scale': None, 'history': []})


def error_of(loader: DataLoader) -> tuple[type, str]:
    """Kind and message of what loading raises."""
    try:
        list(loader)
    except (OSError, ValueError) as error:
        return type(error), message_of(error)
    raise AssertionError('loading raised nothing')


@pytest.mark.parametrize('num_workers', [0, 1])
@pytest.mark.parametrize(
    ('content', 'error', 'message'),
    [
        (b'', InputError, '{path} of sample token0 (CAM_FRONT) is not a readable image (0 bytes): copy it again'),
        (None, FileNotFoundError, 'no image file {path} of sample token0 (CAM_FRONT): complete the dataroot'),
    ],
)
def test_a_broken_image_is_named_in_one_line(tmp_path, num_workers, content, error, message):
    path = tmp_path / 'front.jpg'
    cv2.imwrite(str(path), np.zeros((8, 8, 3), np.uint8))
    loader = DataLoader(OneImage(str(path)), num_workers=num_workers, collate_fn=list)
    assert len(list(loader)) == 1
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    kind, told = error_of(loader)
    assert kind is error
    assert told.startswith(message.format(path=path))
    assert '\n' not in told and 'Traceback' not in told
