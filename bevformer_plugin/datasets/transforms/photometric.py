"""Random changes of brightness, contrast and colour."""

import cv2
import numpy as np
from mmdet3d.datasets.transforms import PhotoMetricDistortion3D
from mmdet3d.registry import TRANSFORMS


@TRANSFORMS.register_module()
class PhotoMetricDistortionMultiView(PhotoMetricDistortion3D):
    """Changes every image of every frame by mmdetection3d's photometric distortion, drawn anew for each image.

    Arguments are those of mmdetection3d, ``brightness_delta=32, contrast_range=(0.5, 1.5), saturation_range=(0.5,
    1.5), hue_delta=18``, whose defaults are the values of the published BEVFormer. The distortion is computed in
    float32 and, as in the published code, may leave values outside 0..255. Float32 images stay float32. Uint8 images
    come back as uint8 together with ``img_range`` (N, 2) of each frame, the values that 0 and 255 stand for: (0, 255)
    unless some values are outside. ``BEVFormerDataPreprocessor`` restores the values on the device.

    The published pipeline distorts before it resizes. This plugin's configs resize first, which costs a quarter at
    half the size and gives nearly the same pixels (all steps but hue and saturation are linear).
    """

    def transform(self, results: dict) -> dict:
        """Distort the current frame and its history."""
        for frame in (*results['history'], results):
            distorted, ranges = zip(*map(self._distort, frame['img']), strict=True)
            if frame['img'][0].dtype == np.uint8:
                frame['img_range'] = np.array(ranges, dtype=np.float32)
            frame['img'] = list(distorted)
        return results

    def _distort(self, image: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
        """Distort an image, and return it in its own type with the values that 0 and 255 stand for."""
        mode, brightness, contrast, saturation, hue, swap, *values, order = self._random_flags()
        drawn = (mode, brightness, contrast, saturation, hue, False, *values, order)
        distorted, limits = super().transform({'img': image, 'photometric_param': drawn})['img'], (0.0, 255.0)
        if image.dtype == np.uint8:
            limits = min(distorted.min(), limits[0]), max(distorted.max(), limits[1])
            step = (limits[1] - limits[0]) / 255
            distorted = cv2.convertScaleAbs(distorted, alpha=1 / step, beta=-limits[0] / step)
        if swap:  # mmdetection3d swaps channels by indexing, which takes ten times as long
            channels = cv2.split(distorted)
            distorted = cv2.merge([channels[channel] for channel in order])
        return distorted, limits
