"""Bringing images to the size the model sees."""
import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS


@TRANSFORMS.register_module()
class ResizeMultiView(BaseTransform):
    """Resizes all images of a queue to ``scale`` = (W, H), bilinearly, and ``lidar2img`` with them.

    The size comes from the dataset's ``image_size``. An image that has it already, or any if it is None, stays as is.
    Pixel coordinates scale as u' = u * W / W_stored, v' = v * H / H_stored, as in the published code.
    """

    def transform(self, results: dict) -> dict:
        """Resize the current frame and its history."""
        for frame in (*results['history'], results):
            if frame['scale'] is None:
                continue
            width, height = frame['scale']
            for camera, image in enumerate(frame['img']):
                stored_height, stored_width = image.shape[:2]
                if (stored_width, stored_height) == (width, height):
                    continue
                frame['img'][camera] = mmcv.imresize(image, (width, height), interpolation='bilinear')
                scaling = np.diag([width / stored_width, height / stored_height, 1.0, 1.0])
                frame['lidar2img'][camera] = scaling @ frame['lidar2img'][camera]
        return results
