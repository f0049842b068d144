"""The thirteen nuScenes tables of a synthetic world."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Sequence

import numpy as np
from pyquaternion import Quaternion

from bevformer_plugin.nuscenes_format import TABLES
from bevformer_plugin.synthetic.map_expansion import Place
from bevformer_plugin.synthetic.objects import POSITION_DECIMALS
from bevformer_plugin.synthetic.rig import CAMERA_MOUNTS, LIDAR, Camera, yaw_quaternion
from bevformer_plugin.synthetic.scenario import Scenario, camera_timestamps
from bevformer_plugin.synthetic.tokens import token

CATEGORIES = (
    'human.pedestrian.adult',
    'human.pedestrian.child',
    'human.pedestrian.wheelchair',
    'human.pedestrian.stroller',
    'human.pedestrian.personal_mobility',
    'human.pedestrian.police_officer',
    'human.pedestrian.construction_worker',
    'animal',
    'vehicle.car',
    'vehicle.motorcycle',
    'vehicle.bicycle',
    'vehicle.bus.bendy',
    'vehicle.bus.rigid',
    'vehicle.truck',
    'vehicle.construction',
    'vehicle.emergency.ambulance',
    'vehicle.emergency.police',
    'vehicle.trailer',
    'movable_object.barrier',
    'movable_object.trafficcone',
    'movable_object.pushable_pullable',
    'movable_object.debris',
    'static_object.bicycle_rack',
)
ATTRIBUTES = (
    'vehicle.moving',
    'vehicle.stopped',
    'vehicle.parked',
    'cycle.with_rider',
    'cycle.without_rider',
    'pedestrian.sitting_lying_down',
    'pedestrian.standing',
    'pedestrian.moving',
)
# Token, level, and the least and the largest percentage of an object that is visible.
VISIBILITIES = (('1', 'v0-40', 0, 40), ('2', 'v40-60', 40, 60), ('3', 'v60-80', 60, 80), ('4', 'v80-100', 80, 100))
VEHICLE = 'synthetic'


@dataclasses.dataclass(frozen=True)
class BoxAnnotation:
    """The box of an actor in a keyframe.

    Attributes:
        frame, actor: indices of the keyframe and of the actor in its scene.
        name: detection class of the actor.
        pose: x, y, yaw in the frame of the scene's map.
        attribute: nuScenes attribute, '' for none.
        visibility: token of a row of ``VISIBILITIES``.
        num_lidar_pts, num_radar_pts: points inside the box.
    """

    frame: int
    actor: int
    name: str
    pose: tuple[float, float, float]
    attribute: str
    visibility: str
    num_lidar_pts: int
    num_radar_pts: int


def log_name(scenario: Scenario) -> str:
    """Return the name of the log that a scene is of; each scene has its own."""
    return f'{VEHICLE}-{scenario.name}'


def sensor_timestamps(keyframe: int) -> dict[str, int]:
    """Return the timestamps of all sensors of a keyframe by channel, in microseconds."""
    return {**camera_timestamps(keyframe), LIDAR: int(keyframe)}


def file_name(scenario: Scenario, channel: str, timestamp: int) -> str:
    """Return the path of a sensor file relative to the dataroot."""
    ending = 'pcd.bin' if channel == LIDAR else 'jpg'
    return f'samples/{channel}/{log_name(scenario)}__{channel}__{timestamp}.{ending}'


def map_file(seed: int, location: str) -> str:
    """Return the path of a location's map mask relative to the dataroot."""
    return f'maps/{token(seed, "map", location)}.png'


class TableWriter:
    """Collects the records of a world scene by scene.

    Args:
        seed: part of every token.
        image_size: (width, height) in pixels.
    """

    def __init__(self, seed: int, image_size: tuple[int, int]) -> None:
        self.seed, self.image_size = seed, image_size
        self.tables: dict[str, list[dict]] = {name: [] for name in TABLES}
        for table, names in (('category', CATEGORIES), ('attribute', ATTRIBUTES)):
            self.tables[table] = [
                {'token': token(table, name), 'name': name, 'description': f'Synthetic {name}.'} for name in names
            ]
        self.tables['visibility'] = [
            {'token': key, 'level': level, 'description': f'{low} to {high} percent of the object is visible'}
            for key, level, low, high in VISIBILITIES
        ]
        self.tables['sensor'] = [
            {
                'token': token('sensor', channel),
                'channel': channel,
                'modality': 'lidar' if channel == LIDAR else 'camera',
            }
            for channel in (*CAMERA_MOUNTS, LIDAR)
        ]

    def add_scene(self, scenario: Scenario, annotations: list[BoxAnnotation], place: Place) -> None:
        """Append all records of a scene.

        Args:
            scenario: the scene.
            annotations: its boxes in time order.
            place: where the scene lies, by which poses and boxes are shifted.
        """
        scene, samples = self._add_samples(scenario, place.location)
        self._add_sensor_data(scenario, samples, place.corner)
        self._add_annotations(scenario, scene, samples, annotations, place.corner)

    def _add_samples(self, scenario: Scenario, location: str) -> tuple[str, list[str]]:
        """Append the records of a scene's log, scene and samples, and name the log in the map of its location.

        Returns:
            Tokens of the scene and of its samples.
        """
        scene = token(self.seed, 'scene', scenario.name)
        log = token(self.seed, 'log', scenario.name)
        samples = [token(scene, 'sample', k) for k in range(len(scenario.keyframes))]
        self.tables['log'].append(
            {
                'token': log,
                'logfile': log_name(scenario),
                'vehicle': VEHICLE,
                'date_captured': '2018-10-20',
                'location': location,
            }
        )
        self._map_of(location)['log_tokens'].append(log)
        self.tables['scene'].append(
            {
                'token': scene,
                'log_token': log,
                'nbr_samples': len(samples),
                'first_sample_token': samples[0],
                'last_sample_token': samples[-1],
                'name': scenario.name,
                'description': scenario.story,
            }
        )
        before, after = _neighbours(samples)
        self.tables['sample'] += [
            {'token': sample, 'timestamp': int(time), 'prev': previous, 'next': following, 'scene_token': scene}
            for sample, time, previous, following in zip(samples, scenario.keyframes, before, after, strict=True)
        ]
        return scene, samples

    def _map_of(self, location: str) -> dict:
        """Return the record of a location's map, which is appended when it is first asked for."""
        key = token(self.seed, 'map', location)
        for record in self.tables['map']:
            if record['token'] == key:
                return record
        self.tables['map'].append(
            {
                'token': key,
                'category': 'semantic_prior',
                'filename': map_file(self.seed, location),
                'log_tokens': [],
            }
        )
        return self.tables['map'][-1]

    def _add_sensor_data(self, scenario: Scenario, samples: list[str], corner: tuple[int, int]) -> None:
        """Append the records of a scene's sensors, poses and files."""
        scene = token(self.seed, 'scene', scenario.name)
        for channel, sensor in scenario.rig.items():
            calibration = token(scene, 'calibrated_sensor', channel)
            self.tables['calibrated_sensor'].append(
                {
                    'token': calibration,
                    'sensor_token': token('sensor', channel),
                    'translation': sensor.translation.tolist(),
                    'rotation': sensor.rotation.elements.tolist(),
                    'camera_intrinsic': sensor.intrinsic.tolist() if isinstance(sensor, Camera) else [],
                }
            )
            times = [sensor_timestamps(keyframe)[channel] for keyframe in scenario.keyframes]
            poses = scenario.ego_poses(np.array(times))
            records = [token(sample, channel) for sample in samples]
            before, after = _neighbours(records)
            width, height = (0, 0) if channel == LIDAR else self.image_size
            for k, time in enumerate(times):
                x, y, yaw = poses[k].tolist()
                self.tables['ego_pose'].append(
                    {
                        'token': records[k],
                        'timestamp': time,
                        'rotation': yaw_quaternion(yaw),
                        'translation': [x + corner[0], y + corner[1], 0.0],
                    }
                )
                self.tables['sample_data'].append(
                    {
                        'token': records[k],
                        'sample_token': samples[k],
                        'ego_pose_token': records[k],
                        'calibrated_sensor_token': calibration,
                        'timestamp': time,
                        'fileformat': 'pcd' if channel == LIDAR else 'jpg',
                        'is_key_frame': True,
                        'height': height,
                        'width': width,
                        'filename': file_name(scenario, channel, time),
                        'prev': before[k],
                        'next': after[k],
                    }
                )

    def _add_annotations(
        self,
        scenario: Scenario,
        scene: str,
        samples: list[str],
        annotations: list[BoxAnnotation],
        corner: tuple[int, int],
    ) -> None:
        """Append the records of a scene's instances and their annotations."""
        by_actor: dict[int, list[BoxAnnotation]] = {}
        for annotation in annotations:
            by_actor.setdefault(annotation.actor, []).append(annotation)
        for index, group in by_actor.items():
            actor = scenario.actors[index]
            length, width, height = actor.size
            instance = token(scene, 'instance', index)
            records = [token(instance, samples[annotation.frame]) for annotation in group]
            before, after = _neighbours(records)
            self.tables['instance'].append(
                {
                    'token': instance,
                    'category_token': token('category', actor.category),
                    'nbr_annotations': len(group),
                    'first_annotation_token': records[0],
                    'last_annotation_token': records[-1],
                }
            )
            for k, annotation in enumerate(group):
                x, y = (
                    round(round(along, POSITION_DECIMALS) + start, POSITION_DECIMALS)
                    for along, start in zip(annotation.pose[:2], corner, strict=True)
                )
                self.tables['sample_annotation'].append(
                    {
                        'token': records[k],
                        'sample_token': samples[annotation.frame],
                        'instance_token': instance,
                        'visibility_token': annotation.visibility,
                        'attribute_tokens': (
                            [token('attribute', annotation.attribute)] if annotation.attribute else []
                        ),
                        'translation': [x, y, height / 2],
                        'size': [width, length, height],
                        'rotation': Quaternion(axis=(0, 0, 1), radians=annotation.pose[2]).elements.tolist(),
                        'prev': before[k],
                        'next': after[k],
                        'num_lidar_pts': annotation.num_lidar_pts,
                        'num_radar_pts': annotation.num_radar_pts,
                    }
                )

    def write(self, folder: pathlib.Path) -> None:
        """Write one JSON file per table into a new folder."""
        folder.mkdir(parents=True)
        for name, records in self.tables.items():
            (folder / f'{name}.json').write_text(json.dumps(records))


def _neighbours(tokens: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return for each token the one before it and the one after it, '' at the ends."""
    return ['', *tokens[:-1]], [*tokens[1:], '']


def can_bus_messages(scenario: Scenario, corner: tuple[int, int], rate: float = 50.0) -> list[dict]:
    """Make the pose messages of the CAN-bus expansion for a scene at its place, ``rate`` of them a second.

    They last from before the first to after the last timestamp of a sensor. ``pos`` and ``orientation`` (w, x, y, z)
    are global; ``vel``, ``accel`` and ``rotation_rate`` are in the ego frame.
    """
    first, last = int(scenario.keyframes[0]) - 100_000, int(scenario.keyframes[-1]) + 60_000
    times = np.arange(first, last, round(1e6 / rate))
    seconds, step = scenario.seconds(times), 0.05
    poses = scenario.ego_poses(times)
    ego, road = scenario.ego, scenario.road
    speed = ego.speeds(road, seconds)
    push = (ego.speeds(road, seconds + step) - ego.speeds(road, seconds - step)) / (2 * step)
    turn = (scenario.ego_poses(times + 50_000)[:, 2] - scenario.ego_poses(times - 50_000)[:, 2]) / (2 * step)
    return [
        {
            'accel': [float(push[k]), float(speed[k] * turn[k]), 9.81],
            'orientation': yaw_quaternion(poses[k, 2]),
            'pos': [float(poses[k, 0] + corner[0]), float(poses[k, 1] + corner[1]), 0.0],
            'rotation_rate': [0.0, 0.0, float(turn[k])],
            'utime': int(times[k]),
            'vel': [float(speed[k]), 0.0, 0.0],
        }
        for k in range(len(times))
    ]
