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
START_OF_SCAN = 0xDA
WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD9))
# C4, C8 and CC, in the same row of the standard, do not describe a frame.
FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
LIBJPEG_WARNINGS = (
    b'Corrupt JPEG data',
    b'Premature end of JPEG file',
    b'Inconsistent progression sequence',
    b'Invalid SOS parameters',
)
COPY_AGAIN = 'copy it again'

_stderr_is_ours = threading.Lock()


@dataclass(frozen=True)
class JpegHeader:
    """What a JPEG says about itself before its pixels.

    Attributes:
        size: (W, H) as stored.
        components: 1 is grey, 3 colours, 4 CMYK.
        bits: of a component.
        scan: where in the file the pixels start.
    """

    size: tuple[int, int]
    components: int
    bits: int
    scan: int

    @classmethod
    def of(cls, content: bytes) -> 'JpegHeader':
        """Read the header, segment by segment: a thumbnail inside of one is not taken for the picture.

        Raises:
            InputError: if the file ends, or holds something else, before the pixels start.
        """
        frame, position = None, len(JPEG_START)
        while len(content) >= position + 4:
            if content[position] != 0xFF:
                raise InputError(f'is damaged at byte {position}, before its pixels: {COPY_AGAIN}')
            marker = content[position + 1]
            if marker == 0xFF or marker in WITHOUT_LENGTH:
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
    """Whether a file is a JPEG."""
    return content.startswith(JPEG_START)


def decode_jpeg(content: bytes, header: JpegHeader, halved: bool) -> np.ndarray:
    """The (H, W, 3) uint8 pixels, BGR, of a JPEG; an orientation tag is ignored, a grey picture has equal channels.

    Refused are files that are cut, and those about whose data libjpeg complains: it decodes them all the same, to
    garbage from the damaged place on. It notices what breaks the code or moves what follows. On nuScenes images that
    is a damaged block of a disk (512 bytes, whether 0, random or of another JPEG) practically always, 16 bytes in
    three of four cases, a single flipped bit in one of three. What decodes to another valid picture cannot be found
    without a checksum.

    Args:
        content: the file.
        header: of the same file.
        halved: decode at half the size: of each 8 x 8 block the 4 x 4 pixels of the lower frequencies.

    Raises:
        InputError: if the picture is damaged, of more than 8 bits or in CMYK.
    """
    if header.bits != 8:
        raise InputError(f'has {header.bits} bits per colour, images have 8: convert it to 8 bits')
    if header.components not in (1, 3):
        raise InputError(
            f'has {header.components} colour components, as of CMYK, images have 3 or are grey: convert it to RGB'
        )
    if content.find(JPEG_END, header.scan) < 0:  # within pixels these bytes cannot stand for anything else
        raise InputError(f'is cut short ({len(content)} bytes): {COPY_AGAIN}')
    size = cv2.IMREAD_REDUCED_COLOR_2 if halved else cv2.IMREAD_COLOR
    with _libjpeg_warnings() as warnings:
        # Calibration is of pixels as stored, so an orientation tag must not turn the image.
        pixels = _decode(content, size | cv2.IMREAD_IGNORE_ORIENTATION)
    if warnings:
        raise InputError(f'is damaged ({warnings[0]}): {COPY_AGAIN}, or write it anew if it is meant to look so')
    return pixels


def decode_image(content: bytes) -> np.ndarray:
    """The (H, W, 3) uint8 pixels, BGR, of a file of another format that OpenCV knows, such as PNG.

    A grey picture has equal channels; an alpha channel is left out if nothing is transparent.

    Raises:
        InputError: if the file is damaged, of more than 8 bits per colour or transparent.
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
    """OpenCV's ``imdecode``.

    Raises:
        InputError: if it cannot.
    """
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), flags) if content else None
    except cv2.error:  # of sizes beyond its limits
        pixels = None
    if pixels is None:
        raise InputError(f'is not a readable image ({len(content)} bytes): {COPY_AGAIN}')
    return pixels


@contextmanager
def _libjpeg_warnings() -> Iterator[list[str]]:
    """Collects what libjpeg says about damaged data; it says so on the process's standard error and nowhere else.

    What others write there in the meantime is passed on. Costs some microseconds.
    """
    warnings: list[str] = []
    with _stderr_is_ours:
        written = os.memfd_create('libjpeg')
        try:
            stderr = os.dup(2)
        except OSError:  # a process without standard error
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
            os.sched_yield()  # another thread may be in the middle of a write that it began before
            lines = os.pread(written, os.fstat(written).st_size, 0).splitlines(keepends=True)
            os.close(written)
        warnings += [line.decode().strip() for line in lines if line.startswith(LIBJPEG_WARNINGS)]
        passed_on = b''.join(line for line in lines if not line.startswith(LIBJPEG_WARNINGS))
        if passed_on and stderr is not None:
            os.write(2, passed_on)
