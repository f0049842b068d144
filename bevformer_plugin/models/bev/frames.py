"""A frame, and what it leaves behind for the next one: all that the model knows of time, pose and calibration."""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from bevformer_plugin.errors import InputError
from bevformer_plugin.geometry import is_rigid

CAN_BUS_VALUES = 13  # quaternion (4), acceleration (3), rotation rate (3), velocity (3)
REQUIRED = ('lidar2img', 'ego2global', 'timestamp', 'scene_token')


@dataclass(frozen=True)
class Frame:
    """The calibration, pose and time of one sample's images, all on the CPU.

    Attributes:
        name: token of the sample, for messages.
        scene: token of the scene; frames of one scene follow each other.
        timestamp: seconds.
        lidar2img: (N, 4, 4) float64, LiDAR metres to homogeneous pixels, by camera.
        ego2global: (4, 4) float64, the vehicle's frame to the global one, metres.
        lidar2ego: (4, 4) float64, the LiDAR's frame to the vehicle's, metres; None where nothing needs boxes in the
            vehicle's frame.
        can_bus: (13,) float64, what was recorded of the motion: the pose's quaternion (w, x, y, z), acceleration
            (m/s^2), rotation rate (rad/s) and velocity (m/s) of the vehicle. The quaternion is here beside
            ``ego2global`` because its sign, which a pose does not have, is an input of the published models.
        image_hw: padded size of the frame's own images in pixels; None if they fill the batch's.
        index: position of the keyframe in its scene; None where it is not known.
        bev_augmentation: (2, 2) float64, where a place (x, y) of the LiDAR frame is moved to in the BEV and in the
            true boxes; None leaves all where it is.
    """

    name: str
    scene: str
    timestamp: float
    lidar2img: Tensor
    ego2global: Tensor
    can_bus: Tensor
    lidar2ego: Tensor | None = None
    image_hw: tuple[int, int] | None = None
    index: int | None = None
    bev_augmentation: Tensor | None = None

    @classmethod
    def from_meta(cls, meta: dict, num_cameras: int) -> 'Frame':
        """Read a frame from the metainfo of a data sample.

        Args:
            meta: with ``lidar2img`` (N, 4, 4), ``ego2global`` (4, 4), ``timestamp`` and ``scene_token``; where they
                are given also ``lidar2ego`` (4, 4), ``can_bus`` (13,), ``pad_shape`` (H, W), ``frame_idx``,
                ``bev_augmentation`` (2, 2), ``sample_idx`` and names of the ``cameras``. Without ``can_bus`` the
                quaternion is that of the pose with w >= 0, and nothing else was recorded: zeros.
            num_cameras: that the model was built for.

        Raises:
            InputError: naming the sample and what is missing, of another shape or not finite, by camera or value.
        """
        name = str(meta.get('sample_idx', 'without sample_idx'))
        missing = [key for key in REQUIRED if key not in meta]
        if missing:
            raise InputError(f'the meta of sample {name} lacks {", ".join(missing)}')
        lidar2img = _numbers(meta, 'lidar2img', name)
        if len(lidar2img) != num_cameras:
            raise InputError(
                f'the model was built for num_cameras={num_cameras}, got lidar2img of {len(lidar2img)} cameras in '
                f'sample {name}'
            )
        timestamp = _numbers(meta, 'timestamp', name)
        if timestamp.shape != (1,) or not np.isfinite(timestamp).all():
            raise _not_finite('timestamp', name)
        ego2global = _pose(meta, 'ego2global', name)
        return cls(
            name=name,
            scene=meta['scene_token'],
            timestamp=float(timestamp[0]),
            lidar2img=_matrix(meta, 'lidar2img', name, (num_cameras, 4, 4)),
            ego2global=ego2global,
            lidar2ego=_pose(meta, 'lidar2ego', name) if 'lidar2ego' in meta else None,
            can_bus=_matrix(meta, 'can_bus', name, (CAN_BUS_VALUES,))
            if 'can_bus' in meta
            else _unrecorded(ego2global),
            image_hw=tuple(meta['pad_shape'][:2]) if 'pad_shape' in meta else None,
            index=_index(meta, name),
            bev_augmentation=_matrix(meta, 'bev_augmentation', name, (2, 2)) if 'bev_augmentation' in meta else None,
        )

    def seconds_to(self, later: 'Frame') -> float | None:
        """Tell how much later another frame is, in seconds; None if it is of another scene."""
        return later.timestamp - self.timestamp if later.scene == self.scene else None

    def seen_from(self, other: 'Frame') -> 'Frame':
        """Describe this frame's cameras for points that are given in the LiDAR frame of another frame of its scene.

        The world is taken to stand still between the two, so that only the vehicle's own motion is made up for.

        Raises:
            InputError: if one of the frames has no ``lidar2ego``.
        """
        to_own = torch.linalg.solve(self._lidar2global(), other._lidar2global())
        return replace(self, lidar2img=self.lidar2img @ to_own)

    def _lidar2global(self) -> Tensor:
        if self.lidar2ego is None:
            raise InputError(
                f'the meta of sample {self.name} lacks lidar2ego, by which frames are brought into one LiDAR frame'
            )
        return self.ego2global @ self.lidar2ego


@dataclass(frozen=True)
class BEVHistory:
    """The state that one frame leaves behind for the next; it goes in and comes out explicitly.

    Attributes:
        bev_embed: (Q, C) BEV features of the frame, detached.
        frame: where and when that was.
    """

    bev_embed: Tensor
    frame: Frame

    def seconds_to(self, frame: Frame) -> float | None:
        """Tell how much later another frame is, in seconds; None if it is of another scene."""
        return self.frame.seconds_to(frame)


class History(Protocol):
    """The state that a frame leaves behind, whichever detector made it."""

    def seconds_to(self, frame: Frame) -> float | None:
        """Tell how much later another frame is, in seconds; None if it is of another scene."""
        ...


def camera_name(meta: dict, index: int) -> str:
    """Name a camera by the meta's ``cameras``, or by its place where the meta has none."""
    names = meta.get('cameras', ())
    return names[index] if index < len(names) else f'camera {index}'


def _numbers(meta: dict, key: str, name: str) -> np.ndarray:
    values = meta[key]
    try:
        array = values.detach().cpu().double().numpy() if isinstance(values, Tensor) else np.asarray(values)
        return np.atleast_1d(array.astype(np.float64, copy=False))
    except (TypeError, ValueError):
        raise InputError(f'{key} of sample {name} holds no numbers: {values}') from None


def _matrix(meta: dict, key: str, name: str, shape: tuple[int, ...]) -> Tensor:
    """Copy a finite float64 array of the shape, so that a meta is never changed in place."""
    array = _numbers(meta, key, name)
    if array.shape != shape:
        raise InputError(f'{key} of sample {name} has shape {array.shape}, not {shape}')
    if not np.isfinite(array).all():
        if key == 'lidar2img':
            broken = np.flatnonzero(~np.isfinite(array).all(axis=(1, 2)))
            raise _not_finite(f'lidar2img of {", ".join(camera_name(meta, index) for index in broken)}', name)
        if key == 'can_bus':
            raise _not_finite(f'can_bus in values {np.flatnonzero(~np.isfinite(array)).tolist()}', name)
        raise _not_finite(key, name)
    return torch.tensor(array)


def _pose(meta: dict, key: str, name: str) -> Tensor:
    """Copy a (4, 4) matrix that turns and moves, and does nothing else."""
    pose = _matrix(meta, key, name, (4, 4))
    if not is_rigid(pose):
        raise InputError(
            f'{key} of sample {name} is no rotation with a translation: give a (4, 4) matrix in metres with '
            'orthogonal rows in its first three rows and columns, and 0, 0, 0, 1 in its last row'
        )
    return pose


def _index(meta: dict, name: str) -> int | None:
    index = meta.get('frame_idx')
    if index is not None and not isinstance(index, (int, np.integer)):
        raise InputError(f'frame_idx of sample {name} is the position of the keyframe in its scene, not {index!r}')
    return None if index is None else int(index)


def _unrecorded(ego2global: Tensor) -> Tensor:
    """Make the CAN-bus values of a frame of which nothing but the pose is known."""
    x, y, z, w = Rotation.from_matrix(ego2global[:3, :3].numpy()).as_quat(canonical=True)
    return torch.tensor([w, x, y, z, *[0.0] * (CAN_BUS_VALUES - 4)], dtype=torch.float64)


def _not_finite(what: str, name: str) -> InputError:
    return InputError(
        f'{what} of sample {name} is not finite: mend its tables or CAN-bus messages. One such frame would make all '
        'later ones of its scene worthless'
    )
