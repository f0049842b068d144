"""Reading the camera images of a queue."""

from io import BytesIO

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS
from mmengine.fileio import get
from PIL import Image

from .resize import resized_projection

JPEG_START, JPEG_END = b'\xff\xd8', b'\xff\xd9'


@TRANSFORMS.register_module()
class LoadMultiViewImages(BaseTransform):
    """Reads the images of every frame.

    Sets per frame ``img`` (list of (H, W, 3) arrays, BGR, one per camera), ``lidar2img`` (N, 4, 4 float64: LiDAR
    metres to pixels of ``img`` times depth), ``img_paths``, ``cameras``, ``ori_shape`` (H, W of the first image as
    stored).

    A JPEG exactly twice as large as the dataset's ``image_size`` is decoded at half its size: of each 8 x 8 block
    libjpeg computes the 4 x 4 pixels of the lower frequencies. Pixels lie where halving by a resize puts them.

    Args:
        to_float32: the exact path: decode at full size and give float32 images; all following transforms then keep
            float32 without rounding, as the published code does. The default, uint8, takes a quarter of the memory;
            its pixels differ from the exact ones by about a third of a level of 255.
        backend_args: of MMEngine's file backends, for images that are not on a local disk.

    Raises:
        FileNotFoundError: an image file is missing.
        ValueError: an image file is unreadable or cut short.
    """

    def __init__(self, to_float32: bool = False, backend_args: dict | None = None) -> None:
        self.to_float32 = to_float32
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Load the current frame and its history."""
        for frame in (*results['history'], results):
            images = frame['images']
            frame['cameras'] = list(images)
            frame['img_paths'] = [image['img_path'] for image in images.values()]
            loaded = [self._load(path, frame) for path in frame['img_paths']]
            frame['img'] = [pixels for pixels, _ in loaded]
            frame['lidar2img'] = np.stack(
                [
                    resized_projection(image['lidar2img'], stored_size, pixels.shape[1::-1])
                    for image, (pixels, stored_size) in zip(images.values(), loaded, strict=True)
                ]
            )
            frame['ori_shape'] = loaded[0][1][::-1]
        return results

    def _load(self, path: str, frame: dict) -> tuple[np.ndarray, tuple[int, int]]:
        """The image, and its (W, H) as stored."""
        content = self._read(path, frame['token'])
        is_jpeg = content.startswith(JPEG_START)
        cut_short = is_jpeg and JPEG_END not in content
        if is_jpeg and not cut_short and not self.to_float32 and _is_double(content, frame['scale']):
            flag, enlargement = cv2.IMREAD_REDUCED_COLOR_2, 2
        else:
            flag, enlargement = cv2.IMREAD_COLOR, 1
        # Calibration is of pixels as stored, so an orientation tag must not turn the image.
        flag |= cv2.IMREAD_IGNORE_ORIENTATION
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flag) if content else None
        if image is None or cut_short:
            problem = 'is cut short' if cut_short else 'is not a readable image'
            raise ValueError(f'{path} of sample {frame["token"]} {problem} ({len(content)} bytes): copy it again')
        height, width = image.shape[:2]
        return image.astype(np.float32) if self.to_float32 else image, (enlargement * width, enlargement * height)

    def _read(self, path: str, token: str) -> bytes:
        try:
            return get(path, backend_args=self.backend_args)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f'no image file {path} of sample {token}: complete the dataroot, or make the infos again: samples '
                'without images are left out'
            ) from error


def _is_double(jpeg: bytes, size: tuple[int, int] | None) -> bool:
    """Whether the image is twice as wide and high as ``size``; reads its header only."""
    if size is None:
        return False
    width, height = Image.open(BytesIO(jpeg)).size
    return (width, height) == (2 * size[0], 2 * size[1])
