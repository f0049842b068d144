"""Resizing of images to the size that the model takes."""

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS

from .image_files import images_of, size_of


@TRANSFORMS.register_module()
class ResizeMultiView(BaseTransform):
    """Resizes all images of a queue to ``scale`` = (W, H), bilinearly, and ``lidar2img`` with them.

    The size comes from the dataset's ``image_size``. An image that has this size stays as it is, and all do if the
    size is None.
    """

    def transform(self, results: dict) -> dict:
        """Resize the current frame and its history."""
        for frame in (*results['history'], results):
            size = frame['scale']
            if size is None:
                continue
            for camera, image in enumerate(images_of(frame, 'ResizeMultiView')):
                current_size = size_of(image)
                if current_size == size:
                    continue
                frame['img'][camera] = mmcv.imresize(image, size, interpolation='bilinear')
                frame['lidar2img'][camera] = resized_projection(frame['lidar2img'][camera], current_size, size)
        return results


def resized_projection(lidar2img: np.ndarray, from_size: tuple[int, int], to_size: tuple[int, int]) -> np.ndarray:
    """Return the projection (4, 4) into an image that is resized from (W, H) ``from_size`` to ``to_size``.

    Pixel coordinates scale as u' = u * W' / W, v' = v * H' / H, as in the published code.
    """
    scaling = np.diag([to_size[0] / from_size[0], to_size[1] / from_size[1], 1.0, 1.0])
    return scaling @ lidar2img
