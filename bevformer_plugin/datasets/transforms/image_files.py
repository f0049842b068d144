"""From the bytes of an image file to pixels, or an error that says what is wrong with the file."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np

from bevformer_plugin.errors import InputError

JPEG_START, JPEG_END = b'\xff\xd8', b'\xff\xd9'
START_OF_SCAN = 0xDA  # marker of the segment before the pixels
MARKERS_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD9))
# The markers C4, C8 and CC are in the same row of the standard, but their segments do not describe a frame.
FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
LIBJPEG_WARNINGS = (
    b'Corrupt JPEG data',
    b'Premature end of JPEG file',
    b'Inconsistent progression sequence',
    b'Invalid SOS parameters',
)
COPY_AGAIN = 'copy it again'

# File that caught standard error last, how much of it was read, and by which process.
_last_block: tuple[int, int, int] | None = None
_stderr_lock = threading.Lock()  # held while standard error is caught, which only one thread can do at a time


@dataclass(frozen=True)
class JpegHeader:
    """What a JPEG says about itself before its pixels.

    Attributes:
        size: (W, H) as stored.
        components: 1 for grey, 3 for colours, 4 for CMYK.
        bits: number of bits of a component.
        scan: position in the file at which the pixels start.
    """

    size: tuple[int, int]
    components: int
    bits: int
    scan: int

    @classmethod
    def of(cls, content: bytes) -> 'JpegHeader':
        """Read the header of a file, segment by segment, so that no thumbnail in a segment is taken for the picture.

        Raises:
            InputError: the file ends before the pixels start, or holds something else than segments.
        """
        frame, position = None, len(JPEG_START)
        while len(content) >= position + 4:
            if content[position] != 0xFF:
                raise InputError(f'is damaged at byte {position}, before its pixels: {COPY_AGAIN}')
            marker = content[position + 1]
            if marker == 0xFF or marker in MARKERS_WITHOUT_LENGTH:
                position += 1 if marker == 0xFF else 2
                continue
            length = int.from_bytes(content[position + 2 : position + 4], 'big')
            if marker in FRAME_HEADERS:
                frame = content[position + 4 : position + 10]
            position += 2 + length
            if marker == START_OF_SCAN and frame is not None and len(frame) == 6:
                height, width = int.from_bytes(frame[1:3], 'big'), int.from_bytes(frame[3:5], 'big')
                return cls((width, height), components=frame[5], bits=frame[0], scan=position)
        raise InputError(f'is cut short ({len(content)} bytes): {COPY_AGAIN}')


def is_jpeg(content: bytes) -> bool:
    """Return whether the content of a file is a JPEG."""
    return content.startswith(JPEG_START)


def images_of(frame: dict, transform: str) -> list[np.ndarray]:
    """Return the loaded images of a frame, by camera.

    Args:
        frame: of an item in the pipeline.
        transform: name of the transform that wants them, for the message.

    Raises:
        InputError: if they are not loaded yet.
    """
    if 'img' not in frame:
        raise InputError(f'{transform} finds no images: put LoadMultiViewImages before it into the pipeline')
    return frame['img']


def size_of(pixels: np.ndarray) -> tuple[int, int]:
    """Return the (W, H) of an image."""
    height, width = pixels.shape[:2]
    return width, height


def decode_jpeg(content: bytes, header: JpegHeader, halved: bool) -> np.ndarray:
    """Decode a JPEG to (H, W, 3) uint8 pixels, BGR.

    An orientation tag is ignored, and a grey picture gets three equal channels.

    Files that are cut short are refused, and files about whose data libjpeg complains: libjpeg decodes them all the
    same, but to garbage from the damaged place on. It notices damage that makes the code invalid or shifts what
    follows. On nuScenes images it notices a damaged block of a disk (512 bytes, whether 0, random or of another JPEG)
    practically always, 16 damaged bytes in three of four cases, and a single flipped bit in one of three. Damage that
    decodes to another valid picture cannot be found without a checksum.

    Args:
        content: content of the file.
        header: header of the same file.
        halved: decode at half the size, to the 4 x 4 pixels of the lower frequencies of each 8 x 8 block.

    Raises:
        InputError: the picture is damaged, has more than 8 bits per colour, or is in CMYK.
    """
    if header.bits != 8:
        raise InputError(f'has {header.bits} bits per colour, images have 8: convert it to 8 bits')
    if header.components not in (1, 3):
        raise InputError(
            f'has {header.components} colour components, as of CMYK, images have 3 or are grey: convert it to RGB'
        )
    if content.find(JPEG_END, header.scan) < 0:  # the code of pixels never contains these two bytes
        raise InputError(f'is cut short ({len(content)} bytes): {COPY_AGAIN}')
    size = cv2.IMREAD_REDUCED_COLOR_2 if halved else cv2.IMREAD_COLOR
    with _libjpeg_warnings() as warnings:
        # The calibration is for pixels as stored, so an orientation tag must not turn the image.
        pixels = _decode(content, size | cv2.IMREAD_IGNORE_ORIENTATION)
    if warnings:
        raise InputError(f'is damaged ({warnings[0]}): {COPY_AGAIN}, or write it anew if it is meant to look so')
    return pixels


def decode_image(content: bytes) -> np.ndarray:
    """Decode a file of any format that OpenCV knows, such as PNG, to (H, W, 3) uint8 pixels, BGR.

    A grey picture gets three equal channels; an alpha channel is left out if nothing is transparent.

    Raises:
        InputError: the file is damaged, has more than 8 bits per colour, or is transparent in places.
    """
    pixels = _decode(content, cv2.IMREAD_UNCHANGED)
    if pixels.dtype != np.uint8:
        raise InputError(
            f'has {8 * pixels.dtype.itemsize} bits per colour (largest value {pixels.max()}), images have 8: scale it '
            'to 0..255 and store it with 8 bits'
        )
    if pixels.ndim == 2:
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR)
    if pixels.shape[2] == 4 and pixels[..., 3].min() < 255:
        raise InputError('is transparent in places, where it has no colours: store it without alpha channel')
    return np.ascontiguousarray(pixels[..., :3])


def _decode(content: bytes, flags: int) -> np.ndarray:
    """Decode a file by OpenCV's ``imdecode``.

    Raises:
        InputError: OpenCV cannot decode it.
    """
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), flags) if content else None
    except cv2.error:  # raised for images larger than OpenCV's limits
        pixels = None
    if pixels is None:
        raise InputError(f'is not a readable image ({len(content)} bytes): {COPY_AGAIN}')
    return pixels


def _pass_on_late_writes() -> None:
    """Write to standard error what came into the file of the last block after it was read.

    A thread may be held up between the beginning and the end of a write, and nothing tells when it is done.
    """
    global _last_block
    if _last_block is None:
        return
    written, read, process = _last_block
    _last_block = None
    late = os.pread(written, os.fstat(written).st_size - read, read)
    os.close(written)
    if late and process == os.getpid():  # a forked process leaves them to its parent
        os.write(2, late)


@contextmanager
def _libjpeg_warnings() -> Iterator[list[str]]:
    """Collect what libjpeg says about damaged data, which it says on the process's standard error and nowhere else.

    Whatever else is written to standard error in the block is passed on afterwards, or with the next image where a
    write ends after the block. This costs some microseconds.

    Yields:
        A list that holds libjpeg's warnings once the block has ended.
    """
    global _last_block
    warnings: list[str] = []
    with _stderr_lock:
        _pass_on_late_writes()
        written = os.memfd_create('libjpeg')
        try:
            stderr = os.dup(2)
        except OSError:  # the process has no standard error
            stderr = None
        os.dup2(written, 2)
        try:
            yield warnings
        finally:
            if stderr is None:
                os.close(2)
            else:
                os.dup2(stderr, 2)
                os.close(stderr)
            content = os.pread(written, os.fstat(written).st_size, 0)
            if stderr is None:
                os.close(written)
            else:
                _last_block = written, len(content), os.getpid()
        lines = content.splitlines(keepends=True)
        warnings += [line.decode().strip() for line in lines if line.startswith(LIBJPEG_WARNINGS)]
        passed_on = b''.join(line for line in lines if not line.startswith(LIBJPEG_WARNINGS))
        if passed_on and stderr is not None:
            os.write(2, passed_on)
