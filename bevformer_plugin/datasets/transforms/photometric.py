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
            distorted = [super(PhotoMetricDistortionMultiView, self).transform({'img': image})['img']
                         for image in frame['img']]
            if frame['img'][0].dtype == np.uint8:
                distorted, ranges = zip(*map(_to_uint8, distorted), strict=True)
                frame['img_range'] = np.array(ranges, dtype=np.float32)
            frame['img'] = list(distorted)
        return results


def _to_uint8(image: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """Stretch the image's values and 0..255 over 8 bits; also the values that 0 and 255 then stand for."""
    low, high = min(image.min(), 0.0), max(image.max(), 255.0)
    step = (high - low) / 255
    return cv2.convertScaleAbs(image, alpha=1 / step, beta=-low / step), (low, high)
