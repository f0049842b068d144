"""Bringing images to the size the model sees."""

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS


@TRANSFORMS.register_module()
class ResizeMultiView(BaseTransform):
    """Resizes all images of a queue to ``scale`` = (W, H), bilinearly, and ``lidar2img`` with them.

    The size comes from the dataset's ``image_size``. An image that has it already, or any if it is None, stays as is.
    """

    def transform(self, results: dict) -> dict:
        """Resize the current frame and its history."""
        for frame in (*results['history'], results):
            size = frame['scale']
            if size is None:
                continue
            for camera, image in enumerate(frame['img']):
                current_size = image.shape[1::-1]
                if current_size == size:
                    continue
                frame['img'][camera] = mmcv.imresize(image, size, interpolation='bilinear')
                frame['lidar2img'][camera] = resized_projection(frame['lidar2img'][camera], current_size, size)
        return results


def resized_projection(lidar2img: np.ndarray, from_size: tuple[int, int], to_size: tuple[int, int]) -> np.ndarray:
    """The (4, 4) projection into an image of (W, H) ``to_size`` instead of ``from_size``.

    Pixel coordinates scale as u' = u * W' / W, v' = v * H' / H, as in the published code.
    """
    scaling = np.diag([to_size[0] / from_size[0], to_size[1] / from_size[1], 1.0, 1.0])
    return scaling @ lidar2img
