"""From the nuScenes tables to info entries, one per keyframe, in mmdetection3d's info format with the temporal fields.

All matrices are float64 and map points as columns, ``p_target = M @ p_source``. Boxes are (x, y, z of the centre, l,
w, h, yaw) in the LiDAR frame of the keyframe, x right, y forward, z up; velocities are in the same frame. Tables
without LIDAR_TOP get a frame of the same axes at the vehicle's origin in its place.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from nuscenes import NuScenes
from nuscenes.eval.detection.utils import category_to_detection_name
from nuscenes.utils.data_classes import Box
from nuscenes.utils.geometry_utils import transform_matrix
from PIL import Image, UnidentifiedImageError
from pyquaternion import Quaternion

from bevformer_plugin.errors import InputError

from .can_bus import CanBusMessages, can_bus_vector, recorded_channels
from .numeric_checks import finite_rows, require_intrinsics
from .row_checks import check_annotations, check_lidar_mount, check_sensor_times, check_transform
from .table_files import refuse_tables_that_do_not_fit

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
LIDAR = 'LIDAR_TOP'
# Without a LiDAR: x right, y forward as a LiDAR frame, from the vehicle's origin; the vehicle's x is forward, y left.
VEHICLE_FRAME = {'translation': [0.0, 0.0, 0.0], 'rotation': [0.5**0.5, 0.0, 0.0, -(0.5**0.5)]}
VISIBILITY_LEVELS = {'v0-40': 1, 'v40-60': 2, 'v60-80': 3, 'v80-100': 4}
SHORTEST_GAP = 1000  # microseconds between keyframes; less means that timestamps are in another unit


def order_cameras(names) -> list[str]:
    """The six nuScenes cameras in mmdetection3d's order, then any others by name."""
    names = set(names)
    return [name for name in CAMERAS if name in names] + sorted(names.difference(CAMERAS))


def reference_record(tables: NuScenes, sample: dict) -> dict:
    """The ``sample_data`` record whose ego pose is a keyframe's: of LIDAR_TOP, else the one nearest in time.

    Without a LiDAR it is the keyframe's reading of any sensor whose timestamp is nearest to the sample's.

    Raises:
        InputError: the sample has no key frame of any sensor.
    """
    if LIDAR in sample['data']:
        return tables.get('sample_data', sample['data'][LIDAR])
    records = [tables.get('sample_data', token) for token in sample['data'].values()]
    if not records:
        raise InputError(f'sample {sample["token"]} has no key frame of any sensor in sample_data.json')
    return min(records, key=lambda row: (abs(row['timestamp'] - sample['timestamp']), row['channel']))


def visibility_level(tables: NuScenes, annotation: dict) -> int:
    """How visible an object is over all cameras: 1 (less than 40 %) to 4 (80 % and more), 0 if the tables do not say.

    Raises:
        InputError: a level that is not nuScenes'.
    """
    token = annotation.get('visibility_token')
    if not token:
        return 0
    level = tables.get('visibility', token)['level']
    if level not in VISIBILITY_LEVELS:
        raise InputError(f'visibility.json has level {level!r}: nuScenes has {", ".join(VISIBILITY_LEVELS)}')
    return VISIBILITY_LEVELS[level]


@dataclass
class SceneCount:
    """How many keyframes of a scene there are, were written, were left out, and what else they lack.

    ``absent_images`` counts, by camera, keyframes without its image on disk.
    """

    name: str
    keyframes: int = 0
    written: int = 0
    without_images: int = 0
    without_lidar: int = 0
    without_can_bus: int = 0
    absent_images: Counter = field(default_factory=Counter)

    def __add__(self, other: 'SceneCount') -> 'SceneCount':
        fields = ('keyframes', 'written', 'without_images', 'without_lidar', 'without_can_bus', 'absent_images')
        return SceneCount(self.name, **{field: getattr(self, field) + getattr(other, field) for field in fields})


class EntryBuilder:
    """Builds the entries of keyframes and scenes.

    Without LIDAR_TOP in the tables, the LiDAR frame of entries and boxes is one of the same axes at the vehicle's
    origin, see ``VEHICLE_FRAME``, and the vehicle's pose is that of :func:`reference_record`.

    Args:
        tables: see :func:`open_tables`.
        messages: recorded CAN-bus messages.
        cameras: channels that entries have; None takes all of the tables.

    Raises:
        InputError: a camera that the tables do not have, the same one twice, or none at all.
    """

    def __init__(self, tables: NuScenes, messages: CanBusMessages, cameras: list[str] | None = None):
        self.tables = tables
        self.messages = messages
        self.root = Path(tables.dataroot)
        self.samples_of_scenes = Counter(row['scene_token'] for row in tables.sample)
        self.has_lidar = any(LIDAR in sample['data'] for sample in tables.sample)
        self.frame = 'lidar' if self.has_lidar else 'vehicle'
        known = order_cameras(row['channel'] for row in tables.sensor if row['modality'] == 'camera')
        if not known:
            raise InputError(f'the tables of {tables.version} in {self.root} have no camera: sensor.json lists them')
        chosen = known if cameras is None else list(cameras)
        unknown = [name for name in chosen if name not in known]
        if unknown:
            raise InputError(
                f'no camera {", ".join(unknown)} in the tables of {tables.version}: they have {", ".join(known)}'
            )
        if not chosen or len(set(chosen)) < len(chosen):
            raise InputError(f'cameras {chosen}: name at least one of {", ".join(known)}, each once')
        self.cameras = order_cameras(chosen)

    def scene(self, scene: dict) -> tuple[list[dict], SceneCount]:
        """Entries of a scene's keyframes in time order; those that lack an image on disk are left out and counted.

        A missing LiDAR file is counted only: the model needs images, and the boxes come from the tables.

        Raises:
            InputError: a number of the tables or messages is broken, images are of another size than their
                calibration, or the tables do not fit together.
        """
        with refuse_tables_that_do_not_fit(self.tables, scene['name']):
            return self._scene(scene)

    def _scene(self, scene: dict) -> tuple[list[dict], SceneCount]:
        entries, count = [], SceneCount(scene['name'])
        samples = list(self.keyframes(scene))
        messages = self.messages.of_keyframes(scene['name'], [sample['timestamp'] for sample in samples])
        unmeasured = set(self.cameras)
        for frame_idx, (sample, message) in enumerate(zip(samples, messages, strict=True)):
            count.keyframes += 1
            absent = [channel for channel in self.cameras if not self.on_disk(sample, channel)]
            for channel in sorted(unmeasured.difference(absent)):
                self._check_image_size(sample, channel)
            unmeasured.intersection_update(absent)
            if absent:
                count.without_images += 1
                count.absent_images.update(absent)
                continue
            count.written += 1
            count.without_lidar += not self.on_disk(sample, LIDAR)
            count.without_can_bus += message is None
            entry = self.keyframe(sample, frame_idx, message)
            entry['instances'] = self.instances(sample)
            entries.append(entry)
        return entries, count

    def keyframes(self, scene: dict) -> Iterator[dict]:
        """The samples of a scene, in time order.

        Raises:
            InputError: a sample is not later than the one before it, or of another scene, or the chain does not reach
                all samples of the scene.
        """
        token, before, reached = scene['first_sample_token'], None, 0
        while token:
            sample = self.tables.get('sample', token)
            if before is not None and sample['timestamp'] - before['timestamp'] < SHORTEST_GAP:
                raise InputError(
                    f'sample {token} of {scene["name"]} has timestamp {sample["timestamp"]}, but the sample before it '
                    f'{before["timestamp"]}: sample.json holds microseconds, which grow along next'
                )
            if sample['scene_token'] != scene['token']:
                raise InputError(
                    f'sample {token} is in the chain of {scene["name"]}, but its scene_token in sample.json is '
                    f'{sample["scene_token"]}: next of the last sample of a scene is empty'
                )
            yield sample
            token, before, reached = sample['next'], sample, reached + 1
        total = self.samples_of_scenes[scene['token']]
        if reached < total:
            raise InputError(
                f'{scene["name"]} has {total} samples by scene_token in sample.json, but its chain from '
                f'first_sample_token along next reaches {reached}: mend next and first_sample_token'
            )

    def keyframe(self, sample: dict, frame_idx: int, message: dict | None) -> dict:
        """The entry of a keyframe without its boxes.

        ``frame_idx``, ``prev`` and ``next`` are those of the tables, so that a keyframe left out is visible as a gap.
        ``lidar_path`` is '' without a LiDAR.

        Args:
            sample: its row of ``sample``.
            frame_idx: its position in its scene.
            message: that belongs to it, see :meth:`CanBusMessages.of_keyframes`.
        """
        where = f'sample {sample["token"]}'
        check_sensor_times(sample, [self.tables.get('sample_data', token) for token in sample['data'].values()])
        record, mount, pose = self._reference(sample)
        lidar2ego, ego2global = _matrix(mount), _matrix(pose)
        lidar2global = ego2global @ lidar2ego
        return {
            'token': sample['token'],
            'timestamp': sample['timestamp'] / 1e6,
            'scene_token': sample['scene_token'],
            'scene_name': self.tables.get('scene', sample['scene_token'])['name'],
            'prev': sample['prev'],
            'next': sample['next'],
            'frame_idx': frame_idx,
            'ego2global': ego2global.tolist(),
            'can_bus': can_bus_vector(pose['translation'], pose['rotation'], recorded_channels(message, where)),
            'lidar_points': {
                'lidar_path': record['filename'] if self.has_lidar else '',
                'num_pts_feats': 5,
                'lidar2ego': lidar2ego.tolist(),
            },
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
        _, mount, pose = self._reference(sample)
        to_lidar = (_matrix(pose)[:3, :3] @ _matrix(mount)[:3, :3]).T
        annotations = [self.tables.get('sample_annotation', token) for token in sample['anns']]
        names = [category_to_detection_name(annotation['category_name']) for annotation in annotations]
        check_annotations([row for row, name in zip(annotations, names, strict=True) if name])
        return [
            self._instance(annotation, name, mount, pose, to_lidar)
            for annotation, name in zip(annotations, names, strict=True)
            if name
        ]

    def on_disk(self, sample: dict, channel: str) -> bool:
        """Whether the file of a keyframe's sensor is there and not empty."""
        if channel not in sample['data']:
            return False
        path = self.root / self.tables.get('sample_data', sample['data'][channel])['filename']
        return path.is_file() and path.stat().st_size > 0

    def _instance(self, annotation: dict, name: str, mount: dict, pose: dict, to_lidar: np.ndarray) -> dict:
        box = self.tables.get_box(annotation['token'])
        for row in (pose, mount):  # global to vehicle, vehicle to LiDAR, as the devkit does
            box.translate(-np.array(row['translation']))
            box.rotate(Quaternion(row['rotation']).inverse)
        velocity = to_lidar @ [*self.tables.box_velocity(annotation['token'])[:2], 0.0]
        points = annotation['num_lidar_pts'], annotation['num_radar_pts']
        return {
            'bbox_label_3d': CATEGORIES[name],
            'bbox_label': CATEGORIES[name],
            'bbox_3d': _box_values(box),
            'bbox_3d_isvalid': sum(points) > 0,
            'velocity': velocity[:2].tolist(),
            'num_lidar_pts': points[0],
            'num_radar_pts': points[1],
            'visibility': visibility_level(self.tables, annotation),
            'instance_token': annotation['instance_token'],
            'attribute': attribute_name(self.tables, annotation),
        }

    def _image(self, token: str, lidar2global: np.ndarray) -> dict:
        """One camera of an entry; ``lidar2cam`` includes the vehicle's motion between the two sensors' timestamps."""
        record = self.tables.get('sample_data', token)
        mount, pose = self._mount(record), self._pose(record)
        cam2ego = _matrix(mount)
        lidar2cam = np.linalg.inv(_matrix(pose) @ cam2ego) @ lidar2global
        return {
            'img_path': record['filename'],
            'cam2img': self._intrinsic(record, mount),
            'cam2ego': cam2ego.tolist(),
            'lidar2cam': lidar2cam.tolist(),
            'sample_data_token': token,
            'timestamp': record['timestamp'] / 1e6,
            'height': record['height'],
            'width': record['width'],
        }

    def _reference(self, sample: dict) -> tuple[dict, dict, dict]:
        """Of the frame that boxes are given in: its sensor's record, mount on the vehicle, and the vehicle's pose."""
        if self.has_lidar and LIDAR not in sample['data']:
            raise InputError(
                f'sample {sample["token"]} has no {LIDAR} in sample_data.json though others have: boxes are given in '
                'its frame; complete the table, or take LIDAR_TOP out of all of it'
            )
        record = reference_record(self.tables, sample)
        return record, self._mount(record) if self.has_lidar else VEHICLE_FRAME, self._pose(record)

    def _mount(self, record: dict) -> dict:
        """A sensor's row of ``calibrated_sensor``, checked."""
        row = self.tables.get('calibrated_sensor', record['calibrated_sensor_token'])
        if record['channel'] == LIDAR:
            check_lidar_mount(row, _where(record))
        else:
            check_transform(row, 'calibrated_sensor', _where(record))
        return row

    def _pose(self, record: dict) -> dict:
        """The vehicle's pose at a sensor's timestamp, a row of ``ego_pose``, checked."""
        row = self.tables.get('ego_pose', record['ego_pose_token'])
        check_transform(row, 'ego_pose', _where(record))
        return row

    def _intrinsic(self, record: dict, mount: dict) -> list[list[float]]:
        where = _where(record)

        def describe(_: int) -> str:
            return f'{where}: camera_intrinsic in calibrated_sensor.json'

        size = [record['width'], record['height']]
        size = finite_rows([size], (2,), lambda _: f'{where}: width, height in sample_data.json')
        require_intrinsics(finite_rows([mount['camera_intrinsic']], (3, 3), describe), size, describe)
        return mount['camera_intrinsic']

    def _check_image_size(self, sample: dict, channel: str) -> None:
        """Refuse an image that is not of the size that its calibration is for.

        Raises:
            InputError: naming the file and both sizes, or a file that is no image.
        """
        record = self.tables.get('sample_data', sample['data'][channel])
        path = self.root / record['filename']
        try:
            with Image.open(path) as image:
                stored = image.size
        except UnidentifiedImageError:
            raise InputError(f'{path} ({_where(record)}) is not a readable image: copy it again') from None
        if stored != (record['width'], record['height']):
            raise InputError(
                f'{path} ({_where(record)}) is {stored[0]} x {stored[1]} pixels, but sample_data.json says '
                f'{record["width"]} x {record["height"]}, which the calibration is for: give the images of that size, '
                'or write the new size there and scale camera_intrinsic in calibrated_sensor.json'
            )


def attribute_name(tables: NuScenes, annotation: dict) -> str:
    """The attribute of an annotation; '' if it has none."""
    names = [tables.get('attribute', token)['name'] for token in annotation['attribute_tokens']]
    return names[0] if names else ''


def _box_values(box: Box) -> list[float]:
    width, length, height = box.wlh
    return [float(value) for value in (*box.center, length, width, height, box.orientation.yaw_pitch_roll[0])]


def _matrix(row: dict) -> np.ndarray:
    """(4, 4) of a row of ``ego_pose`` or ``calibrated_sensor``."""
    return transform_matrix(row['translation'], Quaternion(row['rotation']))


def _where(record: dict) -> str:
    return f'sample {record["sample_token"]}, {record["channel"]}'
