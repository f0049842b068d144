"""Random changes of brightness, contrast and colour."""

import cv2
import numpy as np
from mmdet3d.datasets.transforms import PhotoMetricDistortion3D
from mmdet3d.registry import TRANSFORMS


@TRANSFORMS.register_module()
class PhotoMetricDistortionMultiView(PhotoMetricDistortion3D):
    """mmdetection3d's photometric distortion, drawn anew for every image of every frame.

    Arguments are its: ``brightness_delta=32, contrast_range=(0.5, 1.5), saturation_range=(0.5, 1.5), hue_delta=18``,
    those of the published BEVFormer. It computes in float32 and, as there, leaves values outside 0..255. Float32
    images stay so. Uint8 images come back as uint8 with ``img_range`` (N, 2) per frame: the values that 0 and 255
    stand for, (0, 255) unless some are outside; ``BEVFormerDataPreprocessor`` undoes it on the device.

    The published pipeline distorts before it resizes; ours resizes first, which costs a quarter at half the size and
    gives nearly the same pixels (all steps but hue and saturation are linear).
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
        """The distorted image in the type given, and the values that 0 and 255 stand for."""
        mode, brightness, contrast, saturation, hue, swap, *values, order = self._random_flags()
        drawn = (mode, brightness, contrast, saturation, hue, False, *values, order)
        distorted, limits = super().transform({'img': image, 'photometric_param': drawn})['img'], (0.0, 255.0)
        if image.dtype == np.uint8:
            limits = min(distorted.min(), limits[0]), max(distorted.max(), limits[1])
            step = (limits[1] - limits[0]) / 255
            distorted = cv2.convertScaleAbs(distorted, alpha=1 / step, beta=-limits[0] / step)
        if swap:  # the library's indexing gives an array that is slow to read; this takes a tenth of the time
            channels = cv2.split(distorted)
            distorted = cv2.merge([channels[channel] for channel in order])
        return distorted, limits
