"""Cutting away rows of images in which nothing is to be seen."""

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS

from bevformer_plugin.errors import InputError

from .image_files import images_of, size_of


@TRANSFORMS.register_module()
class CropMultiView(BaseTransform):
    """Cuts rows from the top of all images of a queue, and moves ``lidar2img`` with them.

    Args:
        top: rows of the images as they are stored; the published BEVFormerV2 cuts 260 of 900.

    Raises:
        InputError: if ``top`` is no whole number of at least 0, or an image has no rows left or another size than
            stored.
    """

    def __init__(self, top: int) -> None:
        if not isinstance(top, int) or isinstance(top, bool) or top < 0:
            raise InputError(f'top of CropMultiView is a number of rows and at least 0, not {top!r}')
        self.top = top

    def transform(self, results: dict) -> dict:
        """Crop the current frame and its history."""
        for frame in (*results['history'], results):
            for camera, image in enumerate(images_of(frame, 'CropMultiView')):
                width, height = size_of(image)
                self._require_stored(frame, camera, (width, height))
                if height <= self.top:
                    raise InputError(
                        f'top={self.top} of CropMultiView leaves nothing of an image of {width} x {height} pixels '
                        f'({frame["img_paths"][camera]}): put CropMultiView right after LoadMultiViewImages'
                    )
                frame['img'][camera] = image[self.top :]
                frame['lidar2img'][camera] = cropped_projection(frame['lidar2img'][camera], self.top)
        return results

    def _require_stored(self, frame: dict, camera: int, size: tuple[int, int]) -> None:
        """Refuse an image that is not of its stored size any more, of which other rows would be cut."""
        stored = [(image['width'], image['height']) for image in frame.get('images', {}).values()]
        if stored and stored[camera] != size:
            raise InputError(
                f'top={self.top} of CropMultiView is of images as they are stored, {stored[camera][0]} x '
                f'{stored[camera][1]}, and {frame["img_paths"][camera]} is {size[0]} x {size[1]} by then: put '
                'CropMultiView right after LoadMultiViewImages; where image_size of the dataset is half of the stored '
                'size, set to_float32=True there, or give the size after the crop'
            )


def cropped_projection(lidar2img: np.ndarray, top: int) -> np.ndarray:
    """Return the projection (4, 4) into an image from which rows were cut at the top."""
    shift = np.eye(4)
    shift[1, 2] = -top
    return shift @ lidar2img
