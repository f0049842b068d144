"""The cameras of a vehicle, by name, and the file that describes them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import ArrayLike

from bevformer_plugin.atomic_write import atomic_write
from bevformer_plugin.errors import InputError
from bevformer_plugin.geometry import is_rigid

from .camera import Camera, array_of, pose_of_wxyz, pose_of_xyzw

# Where nuScenes' vehicles have their LiDAR, in whose frame (x right, y forward, z up) the models think: its mean pose
# to the centimetre and degree. A model finds heights and distances as seen from there, with or without a LiDAR.
NUSCENES_LIDAR2EGO = np.array([[0.0, 1, 0, 0.94], [-1, 0, 0, 0], [0, 0, 1, 1.84], [0, 0, 0, 1]])
RIG_KEYS = {'lidar2ego', 'cameras'}
CAMERA_KEYS = {'size', 'intrinsics', 'camera2ego'}
POSES = {
    frozenset({'translation', 'rotation_wxyz'}): ('rotation_wxyz', pose_of_wxyz),
    frozenset({'translation', 'rotation_xyzw'}): ('rotation_xyzw', pose_of_xyzw),
}


@dataclass(frozen=True, eq=False)
class Rig:
    """The cameras of a vehicle.

    Attributes:
        cameras: by the names of the model's cameras, such as CAM_FRONT; a camera that a rig lacks is masked.
        lidar2ego: (4, 4) float64 pose in the vehicle's frame of the frame in which the model thinks (x right, y
            forward, z up, at the LiDAR of the data that it was trained on). The default is that of nuScenes; give the
            LiDAR's own where the model was trained with it.

    Raises:
        InputError: if there are no cameras, or one of them is no :class:`.Camera`.
    """

    cameras: Mapping[str, Camera]
    lidar2ego: np.ndarray = field(default_factory=NUSCENES_LIDAR2EGO.copy)

    def __post_init__(self) -> None:
        if not self.cameras:
            raise InputError('a rig has at least one camera, got none')
        if not isinstance(self.cameras, Mapping):
            raise InputError(f'cameras of a rig are Camera objects by name, got {type(self.cameras).__name__}')
        for name, camera in self.cameras.items():
            if not isinstance(name, str) or not isinstance(camera, Camera):
                raise InputError(f'cameras of a rig are Camera objects by name, got {name!r}: {type(camera).__name__}')
        object.__setattr__(self, 'cameras', dict(self.cameras))
        object.__setattr__(self, 'lidar2ego', array_of(self.lidar2ego, 'lidar2ego of a rig', (4, 4)))

    def lidar2img(self, name: str) -> np.ndarray:
        """Return the projection (4, 4) of a camera, from the LiDAR's frame in metres to pixels times depth."""
        return self.cameras[name].ego2img @ self.lidar2ego

    def resized(self, size: tuple[int, int]) -> 'Rig':
        """Return the rig as it is after the images of all cameras are resized to (W, H), intrinsics with them."""
        return replace(self, cameras={name: camera.resized(size) for name, camera in self.cameras.items()})

    def moved(self, ego2vehicle: ArrayLike) -> 'Rig':
        """Return the rig in another frame of the vehicle.

        A calibration in a frame at the height of the axles, h metres above the ground, becomes one whose origin is on
        the ground by a pose with the translation (0, 0, h).

        Args:
            ego2vehicle: (4, 4) pose of the frame that the cameras are given in, in the new one.

        Raises:
            InputError: if it is no rotation with a translation.
        """
        pose = array_of(ego2vehicle, 'ego2vehicle', (4, 4))
        if not is_rigid(torch.from_numpy(pose)):
            raise InputError(f'ego2vehicle is no rotation with a translation, {np.round(pose, 3).tolist()}')
        cameras = {name: replace(camera, camera2ego=pose @ camera.camera2ego) for name, camera in self.cameras.items()}
        return replace(self, cameras=cameras)

    def require_rigid(self) -> None:
        """Refuse a rig with a pose that does more than turn and move.

        Raises:
            InputError: naming the camera, with the advice to run ``check_rig``.
        """
        poses = {**{name: camera.camera2ego for name, camera in self.cameras.items()}, 'lidar2ego': self.lidar2ego}
        rigid = is_rigid(torch.from_numpy(np.stack(list(poses.values())))).tolist()
        for (name, pose), is_motion in zip(poses.items(), rigid, strict=True):
            if not is_motion:
                what = 'lidar2ego' if name == 'lidar2ego' else f'camera2ego of {name}'
                raise InputError(
                    f'{what} is no rotation with a translation, {np.round(pose, 3).tolist()}: check_rig(rig) says '
                    'what looks wrong'
                )

    def require_image(self, name: str, image: object) -> None:
        """Refuse what is no image of a camera of the rig.

        Args:
            name: of the camera.
            image: what should be (H, W, 3) uint8 BGR, of the camera's size.

        Raises:
            InputError: naming the camera.
        """
        height, width = require_bgr(name, image).shape[:2]
        if (width, height) != self.cameras[name].size:
            raise InputError(
                f'the image of {name} is {width} x {height} pixels, its calibration is for '
                f'{self.cameras[name].size[0]} x {self.cameras[name].size[1]}: give the images that were calibrated, '
                'or rig.resized(size) if they were resized since'
            )

    @classmethod
    def from_info(cls, info: Mapping[str, Any]) -> 'Rig':
        """Read the rig of one frame of an info file, see :func:`bevformer_plugin.datasets.infos.load_infos`.

        Cameras of nuScenes expose one after the other, so where the vehicle moves, their poses at the frame's own time
        differ from frame to frame.

        Args:
            info: an entry of ``data_list``.
        """
        lidar2ego = np.array(info['lidar_points']['lidar2ego'], dtype=np.float64)
        cameras = {}
        for name, image in info['images'].items():
            lidar2cam = np.array(image['lidar2cam'], dtype=np.float64)
            intrinsics = np.array(image['cam2img'], dtype=np.float64)[:3, :3]
            camera2ego = lidar2ego @ np.linalg.inv(lidar2cam)
            cameras[name] = Camera(intrinsics, camera2ego, (image['width'], image['height']))
        return cls(cameras, lidar2ego)

    @classmethod
    def from_file(cls, path: str | Path) -> 'Rig':
        """Read a rig from a YAML file; ``docs/own_cameras.md`` has its schema.

        Raises:
            FileNotFoundError: if the file does not exist.
            InputError: if it is no YAML, or a key is missing, unknown or unusable; the message names camera and key.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f'rig file {path} does not exist')
        try:
            content = yaml.load(Path(path).read_text(encoding='utf-8'), _UniqueKeyLoader)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(f'rig file {path} is no YAML: {" ".join(str(error).split())}') from None
        _check_keys(content, RIG_KEYS, {'cameras'}, f'rig file {path}')
        _check_keys(content['cameras'], None, set(), f'cameras of rig file {path}')
        what = f'lidar2ego of rig file {path}'
        lidar2ego = {'lidar2ego': _read_pose(content['lidar2ego'], what)} if 'lidar2ego' in content else {}
        cameras = {}
        for name, entry in content['cameras'].items():
            _check_keys(entry, CAMERA_KEYS, CAMERA_KEYS, f'camera {name} of rig file {path}')
            try:
                pose = _read_pose(entry['camera2ego'], 'camera2ego')
                cameras[str(name)] = Camera(entry['intrinsics'], pose, entry['size'])
            except InputError as error:
                raise InputError(f'camera {name} of rig file {path}: {error}') from None
        return cls(cameras, **lidar2ego)

    def to_file(self, path: str | Path) -> None:
        """Write the rig to a YAML file, which :meth:`from_file` reads to the same numbers."""
        content = {
            'lidar2ego': self.lidar2ego.tolist(),
            'cameras': {
                name: {
                    'size': list(camera.size),
                    'intrinsics': camera.intrinsics.tolist(),
                    'camera2ego': camera.camera2ego.tolist(),
                }
                for name, camera in self.cameras.items()
            },
        }
        with atomic_write(path) as file:
            file.write(yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=119).encode())


def require_bgr(name: str, image: object) -> np.ndarray:
    """Return an image of a camera if it is one, of any size.

    Args:
        name: of the camera.
        image: what should be (H, W, 3) uint8 BGR.

    Raises:
        InputError: naming the camera.
    """
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.shape[2:] == (3,) and image.size:
        return image
    found = f'{image.dtype} of shape {image.shape}' if isinstance(image, np.ndarray) else type(image).__name__
    raise InputError(f'the image of {name} is (H, W, 3) uint8 in the order BGR, as cv2.imread returns it, got {found}')


class _UniqueKeyLoader(yaml.SafeLoader):
    """A safe loader that refuses a key that is given twice, of which YAML would keep the last alone."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Construct a mapping, see the class."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.MarkedYAMLError(problem=f'{", ".join(twice)} is given twice', problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def _check_keys(node: object, known: set[str] | None, required: set[str], what: str) -> None:
    """Refuse a node of a rig file that is no mapping, lacks a key or has an unknown one.

    Raises:
        InputError: naming the keys.
    """
    if not isinstance(node, dict):
        raise InputError(f'{what} is a mapping of {", ".join(sorted(known or {"names to cameras"}))}, got {node!r}')
    missing = sorted(required - node.keys())
    if missing:
        raise InputError(f'{what} lacks {", ".join(missing)}')
    unknown = sorted(map(str, node.keys() - known)) if known else []
    if unknown:
        raise InputError(f'{what} has unknown keys {", ".join(unknown)}; known are {", ".join(sorted(known or ()))}')


def _read_pose(value: object, what: str) -> np.ndarray:
    """Read a pose written as a (4, 4) matrix, or as ``translation`` and ``rotation_wxyz`` or ``rotation_xyzw``.

    Raises:
        InputError: if it is written in another way.
    """
    if not isinstance(value, dict):
        array = np.array(value, dtype=object)
        if array.shape != (4, 4):
            raise InputError(
                f'{what} is four rows of four numbers, or translation with rotation_wxyz or rotation_xyzw, '
                f'got {value!r}'
            )
        try:
            return array.astype(np.float64)
        except (TypeError, ValueError):
            raise InputError(f'{what} holds something else than numbers: {value!r}') from None
    if frozenset(value) not in POSES:
        raise InputError(
            f'{what} has {", ".join(map(str, value))}: give translation with rotation_wxyz or rotation_xyzw'
        )
    rotation, make = POSES[frozenset(value)]
    return make(value['translation'], value[rotation])
