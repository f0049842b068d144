"""Reading the camera images of a queue."""
import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS
from mmengine.fileio import get

JPEG_START, JPEG_END = b'\xff\xd8', b'\xff\xd9'


@TRANSFORMS.register_module()
class LoadMultiViewImages(BaseTransform):
    """Reads the images of every frame.

    Sets per frame ``img`` (list of (H, W, 3) arrays, BGR, one per camera), ``lidar2img`` (N, 4, 4 float64: LiDAR
    metres to pixels times depth), ``img_paths``, ``cameras``, ``ori_shape`` (H, W of the first image as stored).

    Args:
        to_float32: give float32 images; all following transforms then keep float32 without rounding or clipping, as
            the published code does. The default, uint8, takes a quarter of the memory.
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
            frame['lidar2img'] = np.stack([image['lidar2img'] for image in images.values()])
            frame['img'] = [self._load(path, frame['token']) for path in frame['img_paths']]
            frame['ori_shape'] = frame['img'][0].shape[:2]
        return results

    def _load(self, path: str, token: str) -> np.ndarray:
        try:
            content = get(path, backend_args=self.backend_args)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f'no image file {path} of sample {token}: complete the dataroot, or make the infos again: samples '
                'without images are left out'
            ) from error
        # Calibration is of pixels as stored, so an orientation tag must not turn the image.
        image = mmcv.imfrombytes(content, flag='color_ignore_orientation') if content else None
        cut_short = content.startswith(JPEG_START) and JPEG_END not in content
        if image is None or cut_short:
            problem = 'is cut short' if cut_short else 'is not a readable image'
            raise ValueError(f'{path} of sample {token} {problem} ({len(content)} bytes): copy it again')
        return image.astype(np.float32) if self.to_float32 else image
