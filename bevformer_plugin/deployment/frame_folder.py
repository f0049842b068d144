"""A drive on the disk: images by camera and time, and where the vehicle was."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from scipy.spatial.transform import Rotation, Slerp

from bevformer_plugin.datasets.transforms import load_camera_image
from bevformer_plugin.errors import InputError

from .camera import pose_of_wxyz
from .frame_predictor import LATEST_SECONDS, StreamFrame
from .rig import Rig
from .vehicle_pose import ego2global_of

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp')
PLANAR_COLUMNS = ('timestamp', 'x', 'y', 'yaw')
FULL_COLUMNS = ('timestamp', 'x', 'y', 'z', 'qw', 'qx', 'qy', 'qz')


@dataclass(frozen=True)
class FrameFiles:
    """The image files of one frame.

    Attributes:
        timestamp: seconds.
        paths: by camera of the rig; None where no image is near enough in time.
    """

    timestamp: float
    paths: Mapping[str, Path | None]


def find_frames(folder: str | Path, rig: Rig, max_offset: float = 0.05) -> list[FrameFiles]:
    """Find the frames of a folder that holds ``CAMERA/SECONDS.jpg``, a folder for every camera of the rig.

    The camera with most images sets the times of the frames; every other one gives each frame the image nearest in
    time, if there is one within ``max_offset``.

    Args:
        folder: the folder.
        rig: the cameras.
        max_offset: seconds.

    Returns:
        The frames in the order of time.

    Raises:
        FileNotFoundError: if the folder, or that of a camera, does not exist.
        InputError: if a camera has no images, a file is not named by its time in seconds, or the folder has cameras
            that the rig does not have.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f'no folder {folder}: give the one that holds a folder of images for every camera')
    if not max_offset >= 0:
        raise InputError(f'the largest offset between cameras of a frame is seconds from 0 on, got {max_offset}')
    folders = sorted(path.name for path in folder.iterdir() if path.is_dir() and not _is_hidden(path))
    missing = [name for name in rig.cameras if name not in folders]
    if missing:
        raise FileNotFoundError(
            f'{folder} has no folder of images for {", ".join(missing)}; it holds '
            f'{", ".join(folders) or "no folders"}. Name the folders like the cameras of the rig, or leave the camera '
            'out of the rig'
        )
    foreign = [name for name in folders if name not in rig.cameras]
    if foreign:
        raise InputError(f'{folder} has images of {", ".join(foreign)}, which the rig does not have: add or move them')
    times = {name: _times(folder / name) for name in rig.cameras}
    leading = max(times, key=lambda name: len(times[name]))
    return [
        FrameFiles(time, {name: _nearest(of_camera, time, max_offset) for name, of_camera in times.items()})
        for time in times[leading]
    ]


def count_unused(folder: str | Path, rig: Rig, frames: Sequence[FrameFiles]) -> int:
    """Count the images of a folder that :func:`find_frames` put into no frame, with the same arguments."""
    used = {path for frame in frames for path in frame.paths.values()}
    return sum(path not in used for name in rig.cameras for path in _times(Path(folder) / name).values())


def require_sizes(frames: Sequence[FrameFiles], rig: Rig) -> None:
    """Refuse image files that are of another size than their calibration, by their headers alone.

    An image of the size turned on its side is left to the predictor, because its file may say that it is to be turned.

    Args:
        frames: from :func:`find_frames`.
        rig: the cameras.

    Raises:
        InputError: naming the file.
    """
    for frame in frames:
        for name, path in frame.paths.items():
            if path is None:
                continue
            try:
                with Image.open(path) as image:
                    size = image.size
            except UnidentifiedImageError:
                raise InputError(f'image {path} is not a readable image: copy it again') from None
            width, height = rig.cameras[name].size
            if size not in ((width, height), (height, width)):
                raise InputError(
                    f'{path} is {size[0]} x {size[1]} pixels, the calibration of {name} is for {width} x {height}: '
                    'give the images that were calibrated, or rig.resized(size) if they were resized since'
                )


def _is_hidden(path: Path) -> bool:
    """Tell whether a name is one that systems hide, such as .thumbnails, or ._12.5.jpg of a Mac."""
    return path.name.startswith('.')


def _number(text: str) -> float:
    """Read a finite number; Python's digits parted by underscores are none here, because names may mean otherwise.

    Raises:
        ValueError: if it is none.
    """
    value = float(text)
    if '_' in text or not np.isfinite(value):
        raise ValueError(f'{text!r} is no finite number')
    return value


def _times(folder: Path) -> dict[float, Path]:
    """Read the times of a camera's images from their names, in order.

    Raises:
        InputError: if there are none, or a name is no time in seconds.
    """
    paths = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file() and not _is_hidden(path)
    ]
    if not paths:
        raise InputError(f'{folder} holds no images ({", ".join(IMAGE_SUFFIXES)})')
    times: dict[float, Path] = {}
    for path in paths:
        try:
            time = _number(path.stem)
        except ValueError:
            raise InputError(
                f'{path} is not named by its time: images are SECONDS{path.suffix}, such as 12.5{path.suffix}'
            ) from None
        if abs(time) > LATEST_SECONDS:
            raise InputError(f'the name of {path} looks like micro- or nanoseconds: rename the images to seconds')
        if time in times:
            raise InputError(f'{path} and {times[time]} are of the same time: keep one of them')
        times[time] = path
    return dict(sorted(times.items()))


def _nearest(times: dict[float, Path], time: float, max_offset: float) -> Path | None:
    """Return the image nearest to a time, None if it is farther off than ``max_offset`` seconds."""
    moments = np.fromiter(times, np.float64)
    index = int(np.abs(moments - time).argmin())
    return times[float(moments[index])] if abs(moments[index] - time) <= max_offset else None


class Trajectory:
    """Where a vehicle was, as a function of time.

    Args:
        timestamps: seconds, rising.
        poses: (4, 4) ego2global at these times.
    """

    def __init__(self, timestamps: Sequence[float], poses: Sequence[np.ndarray]) -> None:
        self.timestamps, self.poses = np.asarray(timestamps), np.stack(poses)

    @classmethod
    def from_file(cls, path: str | Path) -> 'Trajectory':
        """Read a CSV file with the columns timestamp, x, y, yaw or timestamp, x, y, z, qw, qx, qy, qz.

        Seconds, metres, radians; the frame is one that stays where it is, x forward and y left at yaw 0.

        Raises:
            FileNotFoundError: if the file does not exist.
            InputError: if it has other columns, no rows, a row that cannot be used, or times that do not rise.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f'poses file {path} does not exist')
        try:
            with open(path, newline='', encoding='utf-8-sig') as file:
                reader = csv.reader(file)
                lines = [(reader.line_num, [entry.strip() for entry in row]) for row in reader if row]
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(f'{path} is no CSV file in UTF-8: {error}') from None
        (_, header), *rows = lines or [(1, [])]
        if tuple(header) not in (PLANAR_COLUMNS, FULL_COLUMNS):
            raise InputError(
                f'{path} has the columns {", ".join(header) or "none"}; they are {", ".join(PLANAR_COLUMNS)} or '
                f'{", ".join(FULL_COLUMNS)}' + (', parted by commas' if ';' in ''.join(header) else '')
            )
        if not rows:
            raise InputError(f'{path} holds no poses')
        timestamps, poses = [], []
        for number, row in rows:
            try:
                time, *values = map(_number, row)
                full = tuple(header) == FULL_COLUMNS
                pose = ego2global_of(pose_of_wxyz(values[:3], values[3:]) if full else values)
            except ValueError as error:
                raise InputError(f'line {number} of {path}: {error}') from None
            if timestamps and time <= timestamps[-1]:
                raise InputError(f'line {number} of {path}: time {time} is not after {timestamps[-1]}: sort the rows')
            timestamps.append(time)
            poses.append(pose)
        return cls(timestamps, poses)

    def at(self, timestamp: float) -> np.ndarray:
        """Interpolate the (4, 4) pose at a time in seconds.

        Raises:
            InputError: if the time lies outside those of the trajectory.
        """
        first, last = self.timestamps[0], self.timestamps[-1]
        if not first <= timestamp <= last:
            raise InputError(
                f'there is no pose for time {timestamp} s: the poses reach from {first} s to {last} s. Give poses '
                'that cover all images'
            )
        if len(self.timestamps) == 1:
            return self.poses[0]
        pose = np.eye(4)
        pose[:3, :3] = Slerp(self.timestamps, Rotation.from_matrix(self.poses[:, :3, :3]))(timestamp).as_matrix()
        pose[:3, 3] = [np.interp(timestamp, self.timestamps, self.poses[:, axis, 3]) for axis in range(3)]
        return pose

    def gap_at(self, timestamp: float) -> float:
        """Tell how many seconds lie between the two poses around a time, 0 where there is a pose at that very time."""
        later = int(np.searchsorted(self.timestamps, timestamp))
        if later in (0, len(self.timestamps)) or self.timestamps[later] == timestamp:
            return 0.0
        return float(self.timestamps[later] - self.timestamps[later - 1])


def read_frames(frames: Sequence[FrameFiles], rig: Rig, poses: Sequence[np.ndarray | None]) -> Iterator[StreamFrame]:
    """Read the images of frames, one after the other.

    Args:
        frames: from :func:`find_frames`.
        rig: the cameras.
        poses: per frame ego2global or None.

    Yields:
        The frames for :meth:`.frame_predictor.FramePredictor.stream`.

    Raises:
        InputError: if an image is damaged; sizes are checked by the predictor.
    """
    for frame, pose in zip(frames, poses, strict=True):
        images = {
            name: None if path is None else load_camera_image(str(path), {}, f'image {path}')[0]
            for name, path in frame.paths.items()
        }
        yield StreamFrame(images, rig, pose, frame.timestamp)
