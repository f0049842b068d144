"""What is detected in one frame, in the coordinates of LiDAR, vehicle, world and every camera."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet3d.structures import LiDARInstance3DBoxes
from nuscenes.eval.detection.constants import DETECTION_NAMES
from scipy.spatial.transform import Rotation

from bevformer_plugin.atomic_write import atomic_write
from bevformer_plugin.errors import InputError
from bevformer_plugin.evaluation import detections_to_results
from bevformer_plugin.visualization import Boxes, MapLayers, check_score_threshold, draw_frame

from .predicted_map import PredictedMap
from .rig import Rig

FRAMES = ('ego', 'lidar', 'global')


@dataclass(frozen=True, eq=False)
class PlacedBoxes:
    """Boxes in some frame of reference.

    Attributes:
        centers: (n, 3) metres.
        sizes: (n, 3) length, width, height in metres.
        rotations: (n, 3, 3) from a box's own axes (x along its length to the front, y to its left, z up) to the frame.
        velocities: (n, 3) metres per second, in the directions of the frame, over the ground.
    """

    centers: np.ndarray
    sizes: np.ndarray
    rotations: np.ndarray
    velocities: np.ndarray

    @property
    def yaws(self) -> np.ndarray:
        """Directions (n,) in radians, counter-clockwise from the frame's x axis; for frames whose z axis is up."""
        return np.arctan2(self.rotations[:, 1, 0], self.rotations[:, 0, 0])

    @property
    def corners(self) -> np.ndarray:
        """Corners (n, 8, 3): the rear's, then the front's, each right below and above, left above and below."""
        unit = np.array([[x, y, z] for x in (-1, 1) for y, z in ((-1, -1), (-1, 1), (1, 1), (1, -1))]) / 2
        return self.centers[:, None] + np.einsum('nij,nkj->nki', self.rotations, unit * self.sizes[:, None])


@dataclass(frozen=True, eq=False)
class Detections:
    """The objects that were detected in one frame, the highest scores first, and the map where the model predicts one.

    Attributes:
        bboxes_3d: n boxes in the LiDAR's frame (x right, y forward, z up), with velocities over the ground.
        scores: (n,) from 0 to 1.
        labels: (n,) places in ``classes``.
        classes: names of all classes of the model; none of a model that predicts the map alone.
        rig: the cameras, with the pose of the LiDAR's frame.
        ego2global: (4, 4) pose of the vehicle, or None where it was not given.
        timestamp: seconds, or None where it was not given.
        map: the predicted map, or None of a model without.
    """

    bboxes_3d: LiDARInstance3DBoxes
    scores: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    rig: Rig
    ego2global: np.ndarray | None
    timestamp: float | None
    map: PredictedMap | None = None

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def names(self) -> tuple[str, ...]:
        """Class name of every object."""
        return tuple(self.classes[label] for label in self.labels)

    def above(self, score: float) -> 'Detections':
        """Return the detections with at least this score.

        Raises:
            InputError: if it is no number from 0 to 1.
        """
        check_score_threshold(score)
        keep = self.scores >= score
        return replace(
            self,
            bboxes_3d=self.bboxes_3d[torch.from_numpy(keep)],
            scores=self.scores[keep],
            labels=self.labels[keep],
        )

    def boxes_in(self, frame: str = 'ego') -> PlacedBoxes:
        """Return the boxes in a frame of reference.

        Args:
            frame: 'ego' (x forward, y left, z up, on the ground), 'lidar' (x right, y forward, z up), 'global', or the
                name of a camera of the rig (x right, y down, z forward).

        Raises:
            InputError: for an unknown frame, or 'global' without a pose.
        """
        lidar2frame = self._lidar2(frame)
        values = self.bboxes_3d.tensor.double().numpy()
        turns = Rotation.from_euler('z', values[:, 6:7]).as_matrix().reshape(-1, 3, 3)
        velocities = np.pad(values[:, 7:9], ((0, 0), (0, 1)))
        return PlacedBoxes(
            centers=self.bboxes_3d.gravity_center.double().numpy() @ lidar2frame[:3, :3].T + lidar2frame[:3, 3],
            sizes=values[:, 3:6],
            rotations=lidar2frame[:3, :3] @ turns,
            velocities=velocities @ lidar2frame[:3, :3].T,
        )

    def _lidar2(self, frame: str) -> np.ndarray:
        """Return the pose (4, 4) of the LiDAR's frame in another one."""
        if frame == 'lidar':
            return np.eye(4)
        if frame == 'ego':
            return self.rig.lidar2ego
        if frame == 'global':
            if self.ego2global is None:
                raise InputError("boxes in the frame 'global' need the vehicle's pose: give step a pose")
            return self.ego2global @ self.rig.lidar2ego
        if frame in self.rig.cameras:
            return np.linalg.inv(self.rig.cameras[frame].camera2ego) @ self.rig.lidar2ego
        raise InputError(
            f'unknown frame {frame!r}; known are {", ".join(FRAMES)} and the cameras {", ".join(self.rig.cameras)}'
        )

    def to_nuscenes(self, sample_token: str) -> list[dict[str, Any]]:
        """Make entries of a nuScenes submission; boxes beyond the range of their class are left out, as its rules say.

        Args:
            sample_token: of the frame.

        Raises:
            InputError: without a pose, for classes that nuScenes does not have, or of a model that detects nothing.
        """
        if not self.classes:
            raise InputError('the model predicts a map and no boxes, of which a submission is made: read the map')
        if self.ego2global is None:
            raise InputError("entries of a submission are in the global frame: give step the vehicle's pose")
        unknown = sorted(set(self.classes) - set(DETECTION_NAMES))
        if unknown:
            raise InputError(f'nuScenes has no classes {", ".join(unknown)}: use to_dict')
        instances = {
            'bboxes_3d': self.bboxes_3d,
            'scores_3d': torch.from_numpy(self.scores),
            'labels_3d': torch.from_numpy(self.labels),
        }
        meta = {'sample_idx': sample_token, 'lidar2ego': self.rig.lidar2ego, 'ego2global': self.ego2global}
        return detections_to_results(instances, meta, list(self.classes))

    def to_dict(self, frame: str = 'ego') -> dict[str, Any]:
        """Make a dict of plain numbers for JSON.

        Args:
            frame: see :meth:`boxes_in`.

        Returns:
            ``timestamp`` (seconds or None), ``frame`` and ``objects``, each with ``name``, ``score``, ``center``
            (metres), ``size`` (length, width, height), ``rotation`` (quaternion w, x, y, z) and ``velocity`` (m/s).

        Raises:
            InputError: for an unknown frame, or 'global' without a pose.
        """
        boxes = self.boxes_in(frame)
        xyzw = Rotation.from_matrix(boxes.rotations).as_quat(canonical=True) if len(self) else np.empty((0, 4))
        columns = (self.scores, boxes.centers, boxes.sizes, xyzw[:, [3, 0, 1, 2]], boxes.velocities)
        rows = zip(self.names, *(column.tolist() for column in columns), strict=True)
        return {
            'timestamp': self.timestamp,
            'frame': frame,
            'objects': [
                {
                    'name': name,
                    'score': score,
                    'center': center,
                    'size': size,
                    'rotation': rotation,
                    'velocity': velocity,
                }
                for name, score, center, size, rotation, velocity in rows
            ],
        }

    def save(self, path: str | Path, frame: str = 'ego') -> None:
        """Write :meth:`to_dict` to a JSON file.

        Raises:
            InputError: for an unknown frame, or 'global' without a pose.
            OSError: if the file cannot be written.
        """
        content = json.dumps(self.to_dict(frame))
        with atomic_write(path) as file:
            file.write(content.encode())

    def draw(self, images: Mapping[str, np.ndarray | None], score_thr: float = 0.3, title: str = '') -> np.ndarray:
        """Draw the boxes into the images, and from above, where the map of a model that predicts one lies below them.

        Args:
            images: by camera, (H, W, 3) uint8 BGR, as given to the predictor.
            score_thr: boxes below this score are left out.
            title: a few words above the images.

        Returns:
            The picture, (H, W, 3) uint8 BGR.

        Raises:
            InputError: if there is no image of any camera, one is of another type or size than the rig's, or
                ``score_thr`` is no number from 0 to 1.
        """
        if not isinstance(images, Mapping):
            raise InputError(f'images are a mapping of camera names to arrays, got {type(images).__name__}')
        shown = {name: image for name, image in images.items() if image is not None and name in self.rig.cameras}
        if not shown:
            raise InputError(f'no image to draw into: give those of {", ".join(self.rig.cameras)}')
        for name, image in shown.items():
            self.rig.require_image(name, image)
        return draw_frame(_Picture(self, shown, title), score_thr)


@dataclass(frozen=True, eq=False)
class _Picture:
    """What :func:`draw_frame` needs of detections, see :class:`bevformer_plugin.visualization.PicturedFrame`."""

    detections: Detections
    images: Mapping[str, np.ndarray]
    title: str
    truth: Boxes | None = None

    @property
    def layers(self) -> MapLayers | None:
        found = self.detections.map
        if found is None:
            return None
        without_boxes = self.predictions is None
        return MapLayers(found.protocol, None, found.probabilities, found.to_lidar, with_boxes=without_boxes)

    @property
    def subtitle(self) -> str:
        time = self.detections.timestamp
        return '' if time is None else f'{time:.3f} s'

    @property
    def cameras(self) -> tuple[str, ...]:
        return tuple(self.images)

    @property
    def predictions(self) -> Boxes | None:
        if not self.detections.classes:
            return None
        boxes = self.detections.boxes_in('lidar')
        values = np.column_stack([boxes.centers, boxes.sizes, boxes.yaws, boxes.velocities[:, :2]])
        return Boxes(values, self.detections.names, self.detections.scores)

    def image(self, camera: str) -> np.ndarray:
        return self.images[camera]

    def lidar2img(self, camera: str) -> np.ndarray:
        return self.detections.rig.lidar2img(camera)[:3]

    def points(self) -> None:
        return None
