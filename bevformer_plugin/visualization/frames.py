"""What a picture shows: a keyframe of an info file, with true boxes and boxes of a submission in its LiDAR frame."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from mmdet3d.structures import LiDARInstance3DBoxes
from pyquaternion import Quaternion

from bevformer_plugin.datasets.infos import count_true_boxes, load_infos
from bevformer_plugin.datasets.map_source import MapSource, footprints_of, require_visibility
from bevformer_plugin.datasets.transforms import load_camera_image
from bevformer_plugin.errors import InputError
from bevformer_plugin.evaluation import (
    DETECTIONS,
    TRACKS,
    SubmissionKind,
    missing_maps,
    read_map,
    read_map_protocol,
    read_submission,
)
from bevformer_plugin.maps import MapProtocol, between_planes, plane_to_global

from .map_layers import MapLayers
from .palette import class_color, track_color, track_label


@dataclass(frozen=True)
class Boxes:
    """Boxes in the LiDAR frame (x right, y forward, z up).

    Attributes:
        values: (n, 9) x, y, z of the centre, length, width, height in metres, yaw in radians, velocity x, y in m/s
            (NaN where unknown).
        names: n class names.
        scores: (n,), 1 for true boxes.
        ids: n ids of the tracks that they are of; None for boxes that are of no tracks.
    """

    values: np.ndarray
    names: tuple[str, ...]
    scores: np.ndarray
    ids: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def corners(self) -> np.ndarray:
        """Corners (n, 8, 3) in metres, in mmdetection3d's order: 0 to 3 are the rear face, 4 to 7 the front face."""
        boxes = LiDARInstance3DBoxes(torch.from_numpy(self.values), box_dim=9, origin=(0.5, 0.5, 0.5))
        return boxes.corners.numpy()

    @property
    def colors(self) -> list[str]:
        """Colours of the boxes: those of their tracks, or of their classes where they are of no tracks."""
        if self.ids is not None:
            return [track_color(name) for name in self.ids]
        return [class_color(name) for name in self.names]

    @property
    def labels(self) -> list[str]:
        """Texts to write beside the boxes: the ids of their tracks, '' where they are of no tracks."""
        return [''] * len(self) if self.ids is None else [track_label(name) for name in self.ids]

    def select(self, keep: np.ndarray) -> 'Boxes':
        """Return the boxes for which ``keep`` (n,) is True."""
        chosen = np.flatnonzero(keep)
        names = tuple(self.names[index] for index in chosen)
        ids = None if self.ids is None else tuple(self.ids[index] for index in chosen)
        return replace(self, values=self.values[keep], names=names, scores=self.scores[keep], ids=ids)


class PicturedFrame(Protocol):
    """What a picture needs of a frame: a keyframe of a dataset, or a frame of somebody's own cameras."""

    @property
    def title(self) -> str:
        """A few words in bold."""
        ...

    @property
    def subtitle(self) -> str:
        """What identifies the frame."""
        ...

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras that have an image."""
        ...

    @property
    def truth(self) -> Boxes | None:
        """True boxes, or None if nobody knows them."""
        ...

    @property
    def predictions(self) -> Boxes | None:
        """Predicted boxes, or None."""
        ...

    @property
    def layers(self) -> MapLayers | None:
        """True and predicted map, or None."""
        ...

    def image(self, camera: str) -> np.ndarray:
        """Return a camera's image, (H, W, 3) uint8 BGR."""
        ...

    def lidar2img(self, camera: str) -> np.ndarray:
        """Return the projection (3, 4) of LiDAR metres to (column * depth, row * depth, depth) of the image."""
        ...

    def points(self) -> np.ndarray | None:
        """Return LiDAR points (n, features), with x, y, z first, or None."""
        ...


@dataclass(frozen=True)
class Frame:
    """A keyframe with its boxes.

    Attributes:
        root: nuScenes dataroot.
        info: entry of the info file.
        truth: true boxes that count.
        predictions: predicted boxes, None without a submission.
        layers: true and predicted map, None where no map is drawn.
    """

    root: Path
    info: dict
    truth: Boxes
    predictions: Boxes | None
    layers: MapLayers | None = None

    @property
    def title(self) -> str:
        """The scene's name and the number of the frame in it."""
        return f'{self.info["scene_name"]}   frame {self.info["frame_idx"]}'

    @property
    def subtitle(self) -> str:
        """The sample's token."""
        return f'sample {self.info["token"]}'

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras."""
        return tuple(self.info['images'])

    def image(self, camera: str) -> np.ndarray:
        """Read a camera's image as training does, (H, W, 3) BGR of the size that its calibration is for.

        Raises:
            FileNotFoundError: the file is missing.
            InputError: :func:`load_camera_image` refuses the file.
        """
        image = self.info['images'][camera]
        path = str(self.root / image['img_path'])
        return load_camera_image(path, image, f'{path} of sample {self.info["token"]} ({camera})')[0]

    def lidar2img(self, camera: str) -> np.ndarray:
        """Return the projection (3, 4) of LiDAR metres to (column * depth, row * depth, depth) of the stored image."""
        image = self.info['images'][camera]
        return np.asarray(image['cam2img']) @ np.asarray(image['lidar2cam'])[:3]

    def points(self) -> np.ndarray | None:
        """Read LiDAR points (n, features), with x, y, z first; None if there is no file.

        Raises:
            InputError: the file does not hold float32 numbers of as many features as the infos say.
        """
        lidar = self.info['lidar_points']
        path, features = self.root / lidar['lidar_path'], lidar['num_pts_feats']
        if not path.is_file():
            return None
        values = np.fromfile(path, np.float32)
        if path.stat().st_size % (4 * features) or not np.isfinite(values).all():
            raise InputError(
                f'{path} ({path.stat().st_size} bytes) is no LiDAR scan of {features} float32 numbers a point, as '
                'nuScenes stores x, y, z, intensity and ring: copy it again, write it so, or take it away'
            )
        return values.reshape(-1, features)


class FrameSource:
    """The keyframes of an info file, with the boxes of a submission of detections or of tracks.

    Args:
        root: nuScenes dataroot.
        infos: info file.
        results: submission, a JSON file; None shows true boxes only.
        rule: which annotated objects are true boxes, 'points', 'visibility' or 'all'.
        tracks: submission of tracks, a JSON file, in the place of ``results``.
        maps: protocol of the true maps that are drawn, or the folder of predicted maps that tools/test.py --maps-out
            has written, which are drawn with the true ones; None draws none.

    Raises:
        FileNotFoundError: a file or folder does not exist.
        InputError: results and tracks are given, a file is of another kind or broken, results or predicted maps lack
            samples of the infos, or the rule is unknown or leaves none of the boxes.
    """

    def __init__(
        self,
        root: str | Path,
        infos: str | Path,
        results: str | Path | None = None,
        rule: str = 'points',
        maps: MapProtocol | Path | None = None,
        tracks: str | Path | None = None,
    ) -> None:
        if results is not None and tracks is not None:
            raise InputError('tracks are predicted boxes as well: give either --results or --tracks')
        self.root = Path(root)
        if not self.root.is_dir():
            raise FileNotFoundError(f'no dataroot {root}: give the folder that holds samples/')
        content = load_infos(infos, root=root)
        count_true_boxes(content['data_list'], rule)
        self.infos = {info['token']: info for info in content['data_list']}
        self.classes = {label: name for name, label in content['metainfo']['categories'].items()}
        self.kind = DETECTIONS if tracks is None else TRACKS
        predicted = results if tracks is None else tracks
        self.results = None if predicted is None else read_submission(predicted, self.kind).results
        if self.results is not None:
            missing = [token for token in self.infos if token not in self.results]
            if missing:
                raise InputError(
                    f'{predicted} lacks {len(missing)} of the {len(self.infos)} samples in {infos} '
                    f'(first: {missing[0]}): give the infos on which the results were made'
                )

        self.maps_dir = maps if isinstance(maps, Path) else None
        protocol = read_map_protocol(maps) if isinstance(maps, Path) else maps
        self.map_source: MapSource | None = None
        if protocol is not None:
            require_visibility(content['data_list'], protocol)
            scenes = {info['scene_token'] for info in self.infos.values()}
            self.map_source = MapSource(self.root, content['metainfo']['version'], scenes, protocol)
        if self.maps_dir is not None:
            without = missing_maps(self.maps_dir, self.infos)
            if without:
                raise InputError(
                    f'{maps} lacks the predicted maps of {len(without)} of the {len(self.infos)} samples in {infos} '
                    f'(first: {without[0]}): give the infos on which the maps were made'
                )

    def tokens_of_scene(self, scene: str) -> list[str]:
        """Return the sample tokens of a scene, given by its name or token, in time order.

        Raises:
            InputError: the infos hold no such scene.
        """
        infos = [info for info in self.infos.values() if scene in (info['scene_name'], info['scene_token'])]
        if not infos:
            names = sorted({info['scene_name'] for info in self.infos.values()})
            raise InputError(
                f'no scene {scene} in the infos; they hold {len(names)}: {", ".join(names[:10])}'
                + (', ...' if len(names) > 10 else '')
            )
        return [info['token'] for info in sorted(infos, key=lambda info: info['timestamp'])]

    def frame(self, token: str) -> Frame:
        """Return the keyframe of a sample token.

        Raises:
            InputError: the infos hold no such sample.
        """
        if token not in self.infos:
            raise InputError(
                f'no sample {token} in the infos; the first of their {len(self.infos)} samples is '
                f'{next(iter(self.infos))}'
            )
        info = self.infos[token]
        predictions = None if self.results is None else boxes_from_results(self.results[token], info, self.kind)
        return Frame(self.root, info, true_boxes(info, self.classes), predictions, self._layers(info))

    def _layers(self, info: dict) -> MapLayers | None:
        """Draw the true map of a keyframe, and read the predicted one."""
        if self.map_source is None:
            return None
        protocol = self.map_source.protocol
        ego2global, lidar2ego = np.asarray(info['ego2global']), np.asarray(info['lidar_points']['lidar2ego'])
        truth = self.map_source.labels(
            {
                'scene_token': info['scene_token'],
                'ego2global': ego2global,
                'lidar2ego': lidar2ego,
                'footprints': footprints_of(info['instances'], self.classes),
            }
        )
        prediction = None if self.maps_dir is None else read_map(self.maps_dir, protocol, info['token'])
        planes = (plane_to_global(frame, ego2global, lidar2ego) for frame in (protocol.frame, 'lidar'))
        without_boxes = self.results is None and prediction is not None
        return MapLayers(protocol, truth, prediction, between_planes(*planes), with_boxes=without_boxes)


def true_boxes(info: dict, classes: dict[int, str]) -> Boxes:
    """Return the boxes of those instances of an info entry that count; ``classes`` names the labels."""
    instances = [instance for instance in info.get('instances', ()) if instance['bbox_3d_isvalid']]
    values = [[*instance['bbox_3d'], *instance['velocity']] for instance in instances]
    names = tuple(classes[instance['bbox_label_3d']] for instance in instances)
    return Boxes(np.array(values, dtype=np.float64).reshape(-1, 9), names, np.ones(len(names)))


def boxes_from_results(entries: list[dict], info: dict, kind: SubmissionKind = DETECTIONS) -> Boxes:
    """Bring the submission entries of a sample from the global frame into its LiDAR frame, ordered by score.

    Args:
        entries: of detections or of tracks.
        info: entry of the info file.
        kind: which of the two.
    """
    lidar2global = np.asarray(info['ego2global']) @ np.asarray(info['lidar_points']['lidar2ego'])
    global2lidar = np.linalg.inv(lidar2global)
    rotation, translation = global2lidar[:3, :3], global2lidar[:3, 3]
    values = np.empty((len(entries), 9))
    for row, entry in zip(values, entries, strict=True):
        heading = rotation @ Quaternion(entry['rotation']).rotation_matrix[:, 0]
        width, length, height = entry['size']
        row[:3] = rotation @ entry['translation'] + translation
        row[3:7] = length, width, height, np.arctan2(heading[1], heading[0])
        row[7:] = (rotation @ [*entry['velocity'], 0.0])[:2]
    scores = np.array([entry[kind.score] for entry in entries], dtype=np.float64)
    order = np.argsort(-scores, kind='stable')
    ids = tuple(entries[i][TRACKS.further] for i in order) if kind is TRACKS else None
    return Boxes(values[order], tuple(entries[i][kind.name] for i in order), scores[order], ids)
