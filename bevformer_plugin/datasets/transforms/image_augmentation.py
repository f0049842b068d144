"""Random sizes and mirroring of all images of a queue, with the calibration that belongs to them."""

from collections.abc import Sequence

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS
from PIL import Image

from bevformer_plugin.errors import InputError

from .image_files import images_of, size_of
from .resize import resized_projection


@TRANSFORMS.register_module()
class RandomResizeMultiView(BaseTransform):
    """Resizes all images of a queue to one height, drawn for the sample, and ``lidar2img`` with them.

    The width follows the height and is rounded to the nearest pixel; ``lidar2img`` has the true ratio of each axis.
    (The published code cuts off a part of a pixel, 1839 columns instead of 1840, and keeps one ratio for both axes.)
    Resizing is bicubic and antialiased, as published.

    Args:
        heights: in pixels, of which one is drawn.

    Raises:
        InputError: if there are no heights, or they are no whole numbers above 0.
    """

    def __init__(self, heights: Sequence[int]) -> None:
        self.heights = tuple(heights) if isinstance(heights, (list, tuple)) else ()
        if not self.heights or not all(isinstance(height, int) and height > 0 for height in self.heights):
            raise InputError(
                f'heights of RandomResizeMultiView are whole pixels, such as [512, 544, 576], not {heights!r}'
            )

    def transform(self, results: dict) -> dict:
        """Resize the current frame and its history."""
        height = int(np.random.choice(self.heights))
        for frame in (*results['history'], results):
            for camera, image in enumerate(images_of(frame, 'RandomResizeMultiView')):
                stored = size_of(image)
                size = round(stored[0] * height / stored[1]), height
                frame['img'][camera] = resize_antialiased(image, size)
                frame['lidar2img'][camera] = resized_projection(frame['lidar2img'][camera], stored, size)
                frame['scale'] = size
        return results


@TRANSFORMS.register_module()
class RandomFlipMultiView(BaseTransform):
    """Mirrors all images of a queue left to right, or none of them, and ``lidar2img`` with them.

    The mirrored image is one of a mirrored camera: what the cameras see, where a LiDAR point projects, and thus the
    BEV and its true boxes stay as they are. (The published code leaves the calibration and mirrors the *features*
    back, which shifts them by the padding on the right.)

    Args:
        prob: chance that a sample is mirrored.

    Raises:
        InputError: if ``prob`` is outside [0, 1].
    """

    def __init__(self, prob: float = 0.5) -> None:
        if not isinstance(prob, (int, float)) or not 0 <= prob <= 1:
            raise InputError(f'prob of RandomFlipMultiView lies in [0, 1], got {prob!r}')
        self.prob = prob

    def transform(self, results: dict) -> dict:
        """Mirror the current frame and its history."""
        if np.random.random() >= self.prob:
            return results
        for frame in (*results['history'], results):
            for camera, image in enumerate(images_of(frame, 'RandomFlipMultiView')):
                frame['img'][camera] = cv2.flip(image, 1)
                frame['lidar2img'][camera] = mirrored_projection(frame['lidar2img'][camera], size_of(image)[0])
        return results


def resize_antialiased(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize an (H, W, 3) image of uint8 or float32 to (W, H) ``size``, bicubically over the area of a new pixel."""
    if size_of(image) == size:
        return image
    if image.dtype == np.uint8:
        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    planes = [Image.fromarray(plane).resize(size, Image.Resampling.BICUBIC) for plane in cv2.split(image)]
    return cv2.merge([np.asarray(plane) for plane in planes])


def mirrored_projection(lidar2img: np.ndarray, width: int) -> np.ndarray:
    """Return the projection (4, 4) into an image of ``width`` pixels that is mirrored left to right.

    A fraction of the width counts from the other side, u' / W = 1 - u / W, as the model looks up fractions.
    """
    mirroring = np.diag([-1.0, 1.0, 1.0, 1.0])
    mirroring[0, 2] = width
    return mirroring @ lidar2img
