"""From the nuScenes tables to info entries, one per keyframe, in mmdetection3d's info format with the temporal fields.

All matrices are float64 and map points as columns, ``p_target = M @ p_source``. Boxes are (x, y, z of the centre, l,
w, h, yaw) in the LiDAR frame of the keyframe, x right, y forward, z up; velocities are in the same frame. If the
tables have no LIDAR_TOP, a frame with the same axes at the vehicle's origin stands for the LiDAR frame.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
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
from .row_checks import (
    check_all_reached,
    check_annotations,
    check_intrinsic,
    check_lidar_mount,
    check_pace,
    check_scene_of,
    check_sensor_times,
    check_successor,
    check_transform,
)
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
# The mount of a LiDAR at the vehicle's origin, which stands in for a missing one: it turns x right, y forward into the
# vehicle's x forward, y left.
VEHICLE_FRAME = {'translation': [0.0, 0.0, 0.0], 'rotation': [0.5**0.5, 0.0, 0.0, -(0.5**0.5)]}
VISIBILITY_LEVELS = {'v0-40': 1, 'v40-60': 2, 'v60-80': 3, 'v80-100': 4}


def order_cameras(names: Iterable[str]) -> list[str]:
    """Order cameras: the six of nuScenes as mmdetection3d does, then any others by name."""
    names = set(names)
    return [name for name in CAMERAS if name in names] + sorted(names.difference(CAMERAS))


def reference_record(tables: NuScenes, sample: dict) -> dict:
    """Return the row of ``sample_data`` whose ego pose is the pose of a keyframe.

    It is the row of LIDAR_TOP or, without a LiDAR, of the sensor whose timestamp is nearest to the sample's.

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
    """Return how visible an annotated object is over all cameras.

    Returns:
        1 (less than 40 %) to 4 (80 % and more), or 0 if the tables do not say.

    Raises:
        InputError: the tables name a level that nuScenes does not have.
    """
    token = annotation.get('visibility_token')
    if not token:
        return 0
    row = tables.get('visibility', token)
    check_visibility(row)
    return VISIBILITY_LEVELS[row['level']]


def check_visibility(row: dict) -> None:
    """Refuse a row of ``visibility`` with a level that nuScenes does not have.

    Raises:
        InputError: naming the level.
    """
    if row['level'] not in VISIBILITY_LEVELS:
        raise InputError(f'visibility.json has level {row["level"]!r}: nuScenes has {", ".join(VISIBILITY_LEVELS)}')


@dataclass
class SceneCount:
    """What became of the keyframes of a scene.

    Attributes:
        name: of the scene, or a title for the sum over several.
        keyframes: how many the tables have.
        written: how many got an entry.
        without_images: how many got none because an image is not on disk.
        without_lidar, without_can_bus: how many of the entries lack a LiDAR file or a CAN-bus message.
        absent_images: number of keyframes whose image is not on disk, by camera.
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

    If the tables have no LIDAR_TOP, the LiDAR frame of entries and boxes is one with the same axes at the vehicle's
    origin, see ``VEHICLE_FRAME``, and the vehicle's pose is that of :func:`reference_record`.

    Args:
        tables: see :func:`open_tables`.
        messages: recorded CAN-bus messages.
        cameras: channels that entries have; None takes all cameras of the tables.

    Raises:
        InputError: the tables lack a camera, ``cameras`` names one twice, or there is no camera at all.
    """

    def __init__(self, tables: NuScenes, messages: CanBusMessages, cameras: list[str] | None = None) -> None:
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
        """Build the entries of a scene's keyframes in time order, without those that lack an image on disk.

        A missing LiDAR file is only counted: the model needs images, and the boxes come from the tables.

        Raises:
            InputError: a number of the tables or messages is broken, images are of another size than their
                calibration, or the tables do not fit together.
        """
        with refuse_tables_that_do_not_fit(self.tables, scene['name']):
            return self._scene(scene)

    def _scene(self, scene: dict) -> tuple[list[dict], SceneCount]:
        entries, count = [], SceneCount(scene['name'])
        samples = list(self.keyframes(scene))
        check_pace(samples, scene)
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
        """Yield the samples of a scene, in time order.

        Raises:
            InputError: a sample is not later than the one before it or is of another scene, or the chain from sample
                to sample does not reach all samples of the scene.
        """
        token, previous, reached = scene['first_sample_token'], None, 0
        while token:
            sample = self.tables.get('sample', token)
            if previous is not None:
                check_successor(previous, sample, scene)
            check_scene_of(sample, scene)
            yield sample
            token, previous, reached = sample['next'], sample, reached + 1
        check_all_reached(scene, reached, self.samples_of_scenes[scene['token']])

    def keyframe(self, sample: dict, frame_idx: int, message: dict | None) -> dict:
        """Build the entry of a keyframe, without its boxes.

        ``frame_idx``, ``prev`` and ``next`` are those of the tables, so that a gap shows where a keyframe is left out.
        ``lidar_path`` is '' without a LiDAR.

        Args:
            sample: the keyframe's row of ``sample``.
            frame_idx: position of the keyframe in its scene.
            message: CAN-bus message of the keyframe, see :meth:`CanBusMessages.of_keyframes`.
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
        """Build the boxes of a keyframe in its LiDAR frame, in the order of the tables.

        Only annotations of the ten detection classes get a box. Velocities are the devkit's, NaN for an object that is
        annotated in one keyframe only.
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
        """Return whether the file of a keyframe's sensor exists and is not empty."""
        if channel not in sample['data']:
            return False
        path = self.root / self.tables.get('sample_data', sample['data'][channel])['filename']
        return path.is_file() and path.stat().st_size > 0

    def _instance(self, annotation: dict, name: str, mount: dict, pose: dict, to_lidar: np.ndarray) -> dict:
        """Build one box; see :meth:`_reference` for mount and pose, ``to_lidar`` (3, 3) turns global directions."""
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
        """Build one camera of an entry.

        Its ``lidar2cam`` includes the motion of the vehicle between the timestamps of LiDAR and camera.
        """
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
        """Return what defines the frame that boxes are given in.

        Returns:
            Its sensor's row of ``sample_data``, the sensor's mount on the vehicle, and the pose of the vehicle.

        Raises:
            InputError: the sample has no LiDAR although others have one.
        """
        if self.has_lidar and LIDAR not in sample['data']:
            raise InputError(
                f'sample {sample["token"]} has no {LIDAR} in sample_data.json though others have: boxes are given in '
                'its frame; complete the table, or take LIDAR_TOP out of all of it'
            )
        record = reference_record(self.tables, sample)
        return record, self._mount(record) if self.has_lidar else VEHICLE_FRAME, self._pose(record)

    def _mount(self, record: dict) -> dict:
        """Return a sensor's row of ``calibrated_sensor`` and refuse a broken one."""
        row = self.tables.get('calibrated_sensor', record['calibrated_sensor_token'])
        if record['channel'] == LIDAR:
            check_lidar_mount(row, _where(record))
        else:
            check_transform(row, 'calibrated_sensor', _where(record))
        return row

    def _pose(self, record: dict) -> dict:
        """Return the row of ``ego_pose`` at a sensor's timestamp and refuse a broken one."""
        row = self.tables.get('ego_pose', record['ego_pose_token'])
        check_transform(row, 'ego_pose', _where(record))
        return row

    def _intrinsic(self, record: dict, mount: dict) -> list[list[float]]:
        """Return the camera matrix of a sensor's mount and refuse one that does not fit the size of its images."""
        check_intrinsic(mount, record, _where(record))
        return mount['camera_intrinsic']

    def _check_image_size(self, sample: dict, channel: str) -> None:
        """Refuse an image file whose size is not the one that its calibration is for.

        Raises:
            InputError: naming the file and both sizes; or the file is no image.
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
    """Return the attribute of an annotation, or '' if it has none."""
    names = [tables.get('attribute', token)['name'] for token in annotation['attribute_tokens']]
    return names[0] if names else ''


def _box_values(box: Box) -> list[float]:
    """Return centre, length, width, height and yaw of the devkit's box."""
    width, length, height = box.wlh
    return [float(value) for value in (*box.center, length, width, height, box.orientation.yaw_pitch_roll[0])]


def _matrix(row: dict) -> np.ndarray:
    """Return the transformation (4, 4) that a row of ``ego_pose`` or ``calibrated_sensor`` holds."""
    return transform_matrix(row['translation'], Quaternion(row['rotation']))


def _where(record: dict) -> str:
    """Name a row of ``sample_data`` in an error."""
    return f'sample {record["sample_token"]}, {record["channel"]}'
