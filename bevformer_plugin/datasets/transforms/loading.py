"""Reading the camera images of a queue."""

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS
from mmengine.fileio import get

from bevformer_plugin.errors import InputError

from .image_files import JpegHeader, decode_image, decode_jpeg, is_jpeg, size_of
from .resize import resized_projection


@TRANSFORMS.register_module()
class LoadMultiViewImages(BaseTransform):
    """Reads the images of every frame.

    Each frame gets ``img`` (list of (H, W, 3) arrays, BGR, one per camera), ``lidar2img`` (N, 4, 4 float64: LiDAR
    metres to pixels of ``img`` times depth), ``img_paths``, ``cameras`` and ``ori_shape`` (H, W of the first image as
    stored). If a camera of an item gives the ``width`` and ``height`` that its ``lidar2img`` is for, as all cameras of
    the dataset do, a file of another size is refused.

    Images must have 8 bits per colour. Grey images get three equal channels, and an alpha channel is left out if
    nothing is transparent; :func:`decode_jpeg` says which damage of a JPEG is found.

    A JPEG exactly twice as large as the dataset's ``image_size`` is decoded at half its size, for which libjpeg
    computes the 4 x 4 pixels of the lower frequencies of each 8 x 8 block. Pixels lie where a resize would put them.

    Args:
        to_float32: decode at full size and give float32 images, which all following transforms keep as float32 without
            rounding, as the published code does. The default, uint8, takes a quarter of the memory, and its pixels
            differ from the exact ones by about a third of a level of 255.
        backend_args: settings of MMEngine's file backends, for images that are not on a local disk.

    Raises:
        FileNotFoundError: an image file is missing.
        InputError: an image file is unreadable, damaged, of another size than its calibration, of more than 8 bits per
            colour, in CMYK or transparent.
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
            loaded = [self._load(camera, frame) for camera in images]
            frame['img'] = [pixels for pixels, _ in loaded]
            frame['lidar2img'] = np.stack(
                [
                    resized_projection(image['lidar2img'], stored_size, size_of(pixels))
                    for image, (pixels, stored_size) in zip(images.values(), loaded, strict=True)
                ]
            )
            frame['ori_shape'] = loaded[0][1][::-1]
        return results

    def _load(self, camera: str, frame: dict) -> tuple[np.ndarray, tuple[int, int]]:
        """Load the image of a camera, and return it with its (W, H) as stored."""
        image = frame['images'][camera]
        pixels, stored_size = load_camera_image(
            image['img_path'],
            image,
            f'{image["img_path"]} of sample {frame["token"]} ({camera})',
            None if self.to_float32 else frame['scale'],
            self.backend_args,
        )
        return pixels.astype(np.float32) if self.to_float32 else pixels, stored_size


def load_camera_image(
    path: str, image: dict, origin: str, halve_to: tuple[int, int] | None = None, backend_args: dict | None = None
) -> tuple[np.ndarray, tuple[int, int]]:
    """Read the image of a camera, and refuse an image that does not fit its calibration or the detector.

    Args:
        path: path or address of the file for MMEngine's file backends.
        image: entry of the image in the infos; if it has ``width`` and ``height``, a file of another size is refused.
        origin: names the image in errors.
        halve_to: (W, H); a JPEG exactly twice as large is decoded at half its size.
        backend_args: settings of MMEngine's file backends.

    Returns:
        The (H, W, 3) uint8 pixels, BGR, and the (W, H) of the image as stored.

    Raises:
        FileNotFoundError: the file is missing.
        InputError: it is unreadable, damaged, of another size than its calibration, of more than 8 bits per colour,
            in CMYK or transparent.
    """
    content = _read(path, origin, backend_args)
    try:
        pixels, stored_size = _decode(content, halve_to)
    except ValueError as error:
        raise InputError(f'{origin} {error}') from None
    if 'width' in image and stored_size != (image['width'], image['height']):
        raise InputError(
            f'{origin}: the calibration is for {image["width"]} x {image["height"]}, the file is '
            f'{stored_size[0]} x {stored_size[1]}: put the images there that the tables are of, or scale '
            'camera_intrinsic of calibrated_sensor and width and height of sample_data as the images were, and '
            'make the infos again'
        )
    return pixels, stored_size


def _decode(content: bytes, halve_to: tuple[int, int] | None) -> tuple[np.ndarray, tuple[int, int]]:
    """Decode a file to its uint8 image, and return it with its (W, H) as stored."""
    if not is_jpeg(content):
        pixels = decode_image(content)
        return pixels, size_of(pixels)
    header = JpegHeader.of(content)
    is_double = halve_to is not None and header.size == (2 * halve_to[0], 2 * halve_to[1])
    return decode_jpeg(content, header, halved=is_double), header.size


def _read(path: str, origin: str, backend_args: dict | None) -> bytes:
    """Read a file; arguments and errors are those of :func:`load_camera_image`."""
    try:
        return get(path, backend_args=backend_args)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f'no image file {origin}: complete the dataroot, or make the infos again: samples without images are '
            'left out'
        ) from error
    except OSError as error:
        raise InputError(f'{origin} cannot be read: {error.strerror or error}') from error
