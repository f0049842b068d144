"""Reading the camera images of a queue."""

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS
from mmengine.fileio import get

from bevformer_plugin.errors import InputError

from .image_files import JpegHeader, decode_image, decode_jpeg, is_jpeg
from .resize import resized_projection


@TRANSFORMS.register_module()
class LoadMultiViewImages(BaseTransform):
    """Reads the images of every frame.

    Sets per frame ``img`` (list of (H, W, 3) arrays, BGR, one per camera), ``lidar2img`` (N, 4, 4 float64: LiDAR
    metres to pixels of ``img`` times depth), ``img_paths``, ``cameras``, ``ori_shape`` (H, W of the first image as
    stored). Where a camera of an item says the ``width`` and ``height`` that its ``lidar2img`` is for, as those of the
    dataset do, a file of another size is refused.

    Images have 8 bits per colour. Grey ones get three equal channels, and an alpha channel is left out where nothing
    is transparent; see :func:`decode_jpeg` for which damage of a JPEG is found.

    A JPEG exactly twice as large as the dataset's ``image_size`` is decoded at half its size: of each 8 x 8 block
    libjpeg computes the 4 x 4 pixels of the lower frequencies. Pixels lie where halving by a resize puts them.

    Args:
        to_float32: the exact path: decode at full size and give float32 images; all following transforms then keep
            float32 without rounding, as the published code does. The default, uint8, takes a quarter of the memory;
            its pixels differ from the exact ones by about a third of a level of 255.
        backend_args: of MMEngine's file backends, for images that are not on a local disk.

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
                    resized_projection(image['lidar2img'], stored_size, pixels.shape[1::-1])
                    for image, (pixels, stored_size) in zip(images.values(), loaded, strict=True)
                ]
            )
            frame['ori_shape'] = loaded[0][1][::-1]
        return results

    def _load(self, camera: str, frame: dict) -> tuple[np.ndarray, tuple[int, int]]:
        """The image, and its (W, H) as stored."""
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
    """Read the image of a camera, and refuse one that its calibration or the detector is not made for.

    Args:
        path: the file, as MMEngine's file backends take it.
        image: what the infos say of the image: a file of another ``width`` and ``height``, where given, is refused.
        origin: which image it is, for messages.
        halve_to: (W, H); a JPEG exactly twice as large is decoded at half its size.
        backend_args: of MMEngine's file backends.

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
    """The uint8 image, and its (W, H) as stored."""
    if not is_jpeg(content):
        pixels = decode_image(content)
        return pixels, pixels.shape[1::-1]
    header = JpegHeader.of(content)
    is_double = halve_to is not None and header.size == (2 * halve_to[0], 2 * halve_to[1])
    return decode_jpeg(content, header, halved=is_double), header.size


def _read(path: str, origin: str, backend_args: dict | None) -> bytes:
    try:
        return get(path, backend_args=backend_args)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f'no image file {origin}: complete the dataroot, or make the infos again: samples without images are '
            'left out'
        ) from error
    except OSError as error:
        raise InputError(f'{origin} cannot be read: {error.strerror or error}') from error
