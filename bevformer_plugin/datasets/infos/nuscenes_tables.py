"""From the nuScenes tables to info entries, one per keyframe, in mmdetection3d's info format with the temporal fields.

All matrices are float64 and map points as columns, ``p_target = M @ p_source``. Boxes are (x, y, z of the centre, l,
w, h, yaw) in the LiDAR frame of the keyframe, x right, y forward, z up; velocities are in the same frame.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nuscenes import NuScenes
from nuscenes.eval.detection.utils import category_to_detection_name
from nuscenes.utils.geometry_utils import transform_matrix
from pyquaternion import Quaternion

from .can_bus import CanBusMessages, can_bus_vector, recorded_channels

CLASSES = (
    'car',
    'truck',
    'trailer',
    'bus',
    'construction_vehicle',
    'bicycle',
    'motorcycle',
    'pedestrian',
    'traffic_cone',
    'barrier',
)
CATEGORIES = {name: index for index, name in enumerate(CLASSES)}
CAMERAS = ('CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_FRONT_LEFT', 'CAM_BACK', 'CAM_BACK_LEFT', 'CAM_BACK_RIGHT')
TABLES = (
    'category',
    'attribute',
    'visibility',
    'instance',
    'sensor',
    'calibrated_sensor',
    'ego_pose',
    'log',
    'scene',
    'sample',
    'sample_data',
    'sample_annotation',
    'map',
)
VERSIONS = ('v1.0-trainval', 'v1.0-mini', 'v1.0-test')


def open_tables(root, version: str) -> NuScenes:
    """Open a dataroot with the devkit, after checking what the devkit would only assert.

    Raises:
        FileNotFoundError: the root, the version's folder, a table or a map is missing.
        ValueError: an unknown version, or tables that the devkit cannot read.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(
            f'no nuScenes folder at {root}: give the folder that holds samples/, maps/ and {version}/'
        )
    if version not in VERSIONS:
        raise ValueError(f'unknown nuScenes version {version!r}: it is one of {", ".join(VERSIONS)}')
    folder = root / version
    if not folder.is_dir():
        others = sorted(path.parent.name for path in root.glob('*/sample.json'))
        raise FileNotFoundError(
            f'{root} holds no {version}: '
            + (f'give one that it holds: {", ".join(others)}' if others else 'it holds no tables at all')
        )
    missing = [f'{name}.json' for name in TABLES if not (folder / f'{name}.json').is_file()]
    if missing:
        raise FileNotFoundError(f'{folder} lacks {", ".join(missing)}: unpack the metadata archive of {version} again')
    try:
        maps = [row['filename'] for row in json.loads((folder / 'map.json').read_text())]
        missing = [name for name in maps if not (root / name).is_file()]
        if missing:
            raise FileNotFoundError(
                f'{root} lacks {", ".join(missing)}, which {version}/map.json names: it comes with the '
                f'metadata archive of {version}'
            )
        return NuScenes(version, str(root), verbose=False)
    except (KeyError, TypeError, AssertionError, json.JSONDecodeError) as error:
        raise ValueError(
            f'the tables in {folder} cannot be read ({type(error).__name__}: {error}): unpack the metadata archive '
            f'of {version} again'
        ) from error


def order_cameras(names) -> list[str]:
    """The six nuScenes cameras in mmdetection3d's order, then any others by name."""
    names = set(names)
    return [name for name in CAMERAS if name in names] + sorted(names.difference(CAMERAS))


@dataclass
class SceneCount:
    """How many keyframes of a scene there are, were written, were left out, and what else they lack."""

    name: str
    keyframes: int = 0
    written: int = 0
    without_images: int = 0
    without_lidar: int = 0
    without_can_bus: int = 0

    def __add__(self, other: 'SceneCount') -> 'SceneCount':
        fields = ('keyframes', 'written', 'without_images', 'without_lidar', 'without_can_bus')
        return SceneCount(self.name, **{field: getattr(self, field) + getattr(other, field) for field in fields})


class EntryBuilder:
    """Builds the entries of keyframes and scenes.

    Args:
        tables: see :func:`open_tables`.
        messages: recorded CAN-bus messages.
    """

    def __init__(self, tables: NuScenes, messages: CanBusMessages):
        self.tables = tables
        self.messages = messages
        self.root = Path(tables.dataroot)
        self.cameras = order_cameras(row['channel'] for row in tables.sensor if row['modality'] == 'camera')

    def scene(self, scene: dict) -> tuple[list[dict], SceneCount]:
        """Entries of a scene's keyframes in time order; those that lack an image on disk are left out and counted.

        A missing LiDAR file is counted only: the model needs images, and the boxes come from the tables.
        """
        entries, count = [], SceneCount(scene['name'])
        messages = self.messages.of_scene(scene['name'])
        for frame_idx, sample in enumerate(self.keyframes(scene)):
            count.keyframes += 1
            if not all(channel in sample['data'] and self._on_disk(sample, channel) for channel in self.cameras):
                count.without_images += 1
                continue
            count.written += 1
            count.without_lidar += not self._on_disk(sample, 'LIDAR_TOP')
            count.without_can_bus += not messages
            entry = self.keyframe(sample, frame_idx, messages)
            entry['instances'] = self.instances(sample)
            entries.append(entry)
        return entries, count

    def keyframes(self, scene: dict):
        """The samples of a scene, in time order."""
        token = scene['first_sample_token']
        while token:
            sample = self.tables.get('sample', token)
            yield sample
            token = sample['next']

    def keyframe(self, sample: dict, frame_idx: int, messages: list[dict]) -> dict:
        """The entry of a keyframe without its boxes.

        ``frame_idx``, ``prev`` and ``next`` are those of the tables, so that a keyframe left out is visible as a gap.
        """
        lidar, lidar2ego, ego2global, pose = self._sensor(sample['data']['LIDAR_TOP'])
        lidar2global = ego2global @ lidar2ego
        message = self.messages.of_sample(messages, sample['timestamp'])
        return {
            'token': sample['token'],
            'timestamp': sample['timestamp'] / 1e6,
            'scene_token': sample['scene_token'],
            'scene_name': self.tables.get('scene', sample['scene_token'])['name'],
            'prev': sample['prev'],
            'next': sample['next'],
            'frame_idx': frame_idx,
            'ego2global': ego2global.tolist(),
            'can_bus': can_bus_vector(pose['translation'], pose['rotation'], recorded_channels(message)),
            'lidar_points': {'lidar_path': lidar['filename'], 'num_pts_feats': 5, 'lidar2ego': lidar2ego.tolist()},
            'images': {
                channel: self._image(sample['data'][channel], lidar2global)
                for channel in self.cameras
                if channel in sample['data']
            },
        }

    def instances(self, sample: dict) -> list[dict]:
        """The boxes of a keyframe in its LiDAR frame, in the tables' order; only the ten detection classes.

        Velocities are the devkit's: NaN for an object seen in one keyframe only.
        """
        token = sample['data']['LIDAR_TOP']
        _, lidar2ego, ego2global, _ = self._sensor(token)
        to_lidar = (ego2global[:3, :3] @ lidar2ego[:3, :3]).T
        instances = []
        for box in self.tables.get_sample_data(token)[1]:
            name = category_to_detection_name(box.name)
            if name is None:
                continue
            annotation = self.tables.get('sample_annotation', box.token)
            velocity = to_lidar @ [*self.tables.box_velocity(box.token)[:2], 0.0]
            width, length, height = box.wlh
            points = annotation['num_lidar_pts'], annotation['num_radar_pts']
            attributes = [self.tables.get('attribute', token)['name'] for token in annotation['attribute_tokens']]
            instances.append(
                {
                    'bbox_label_3d': CATEGORIES[name],
                    'bbox_label': CATEGORIES[name],
                    'bbox_3d': [
                        float(value)
                        for value in (*box.center, length, width, height, box.orientation.yaw_pitch_roll[0])
                    ],
                    'bbox_3d_isvalid': sum(points) > 0,
                    'velocity': velocity[:2].tolist(),
                    'num_lidar_pts': points[0],
                    'num_radar_pts': points[1],
                    'instance_token': annotation['instance_token'],
                    'attribute': attributes[0] if attributes else '',
                }
            )
        return instances

    def _image(self, token: str, lidar2global: np.ndarray) -> dict:
        """One camera of an entry; ``lidar2cam`` includes the vehicle's motion between the two sensors' timestamps."""
        record, cam2ego, ego2global, _ = self._sensor(token)
        calibration = self.tables.get('calibrated_sensor', record['calibrated_sensor_token'])
        lidar2cam = np.linalg.inv(ego2global @ cam2ego) @ lidar2global
        return {
            'img_path': record['filename'],
            'cam2img': calibration['camera_intrinsic'],
            'cam2ego': cam2ego.tolist(),
            'lidar2cam': lidar2cam.tolist(),
            'sample_data_token': token,
            'timestamp': record['timestamp'] / 1e6,
            'height': record['height'],
            'width': record['width'],
        }

    def _sensor(self, token: str) -> tuple[dict, np.ndarray, np.ndarray, dict]:
        """A sensor reading: its record, sensor-to-ego, ego-to-global at its own time, the latter's pose record."""
        record = self.tables.get('sample_data', token)
        mount = self.tables.get('calibrated_sensor', record['calibrated_sensor_token'])
        pose = self.tables.get('ego_pose', record['ego_pose_token'])
        sensor2ego, ego2global = (
            transform_matrix(row['translation'], Quaternion(row['rotation'])) for row in (mount, pose)
        )
        return record, sensor2ego, ego2global, pose

    def _on_disk(self, sample: dict, channel: str) -> bool:
        return (self.root / self.tables.get('sample_data', sample['data'][channel])['filename']).is_file()
