"""Rigs to check: nuScenes' own, those of the simulator, and drawn ones of other vehicles."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from pyquaternion import Quaternion
from scipy.spatial.transform import Rotation

from bevformer_plugin.deployment import Camera, Rig, StreamFrame
from bevformer_plugin.deployment.camera import OPTICAL_TO_FORWARD, pinhole
from bevformer_plugin.synthetic import rig as simulated
from bevformer_plugin.synthetic.rendering import SceneRenderer
from bevformer_plugin.synthetic.scenario import build_scenario

SIZE = (1600, 900)
# Names and yaws of rigs with other numbers of cameras than six, degrees.
ARRANGEMENTS = [
    {'CAM_FRONT': 0},
    {'front': 0, 'back': 180},
    {'frontLeft': 40, 'front': 0, 'frontRight': -40},
    {'FRONT': 0, 'FRONT_LEFT': 45, 'FRONT_RIGHT': -45, 'SIDE_LEFT': 90, 'SIDE_RIGHT': -90},
    {'left_front': 35, 'right_front': -35, 'left_back': 145, 'right_back': -145},
    {
        'ring_front_center': 0,
        'ring_front_left': 45,
        'ring_front_right': -45,
        'ring_side_left': 99,
        'ring_side_right': -99,
        'ring_rear_left': 153,
        'ring_rear_right': -153,
    },
]


@dataclass(frozen=True)
class Drive:
    """Frames of a real scene.

    Attributes:
        rig: of the vehicle.
        poses: (n, 4, 4) ego2global at the keyframes.
        timestamps: (n,) seconds.
        image_files: of each frame by camera; the files of most frames do not exist.
    """

    rig: Rig
    poses: np.ndarray
    timestamps: np.ndarray
    image_files: list[dict[str, Path]]

    def with_images(self) -> tuple[list[int], list[dict[str, np.ndarray]]]:
        """The numbers of the frames that have their images, and these."""
        numbers = [n for n, files in enumerate(self.image_files) if all(file.is_file() for file in files.values())]
        images = [
            {name: cv2.imread(str(file)) for name, file in self.image_files[number].items()} for number in numbers
        ]
        return numbers, images


def real_drives(root: Path) -> dict[str, Drive]:
    """Read the scenes of a nuScenes dataroot, by name."""
    tables = {
        name: json.loads((root / 'v1.0-mini' / f'{name}.json').read_text())
        for name in ('scene', 'sample', 'sample_data', 'ego_pose', 'calibrated_sensor')
    }
    samples, poses, sensors = (
        {row['token']: row for row in tables[name]} for name in ('sample', 'ego_pose', 'calibrated_sensor')
    )
    files: dict[str, dict[str, dict]] = {}
    for row in tables['sample_data']:
        files.setdefault(row['sample_token'], {})[row['filename'].split('/')[1]] = row
    drives = {}
    for scene in tables['scene']:
        token, rows = scene['first_sample_token'], []
        while token:
            rows.append(files[token])
            token = samples[token]['next']
        cameras = {
            name: Camera.from_nuscenes(sensors[row['calibrated_sensor_token']], SIZE)
            for name, row in rows[0].items()
            if name.startswith('CAM')
        }
        ego2global = []
        for row in rows:
            pose = poses[row['LIDAR_TOP']['ego_pose_token']]
            matrix = Quaternion(pose['rotation']).transformation_matrix
            matrix[:3, 3] = pose['translation']
            ego2global.append(matrix)
        drives[scene['name']] = Drive(
            Rig(cameras),
            np.stack(ego2global),
            np.array([row['LIDAR_TOP']['timestamp'] * 1e-6 for row in rows]),
            [{name: root / row[name]['filename'] for name in cameras} for row in rows],
        )
    return drives


def rig_of(sensors: dict[str, simulated.Sensor], size: tuple[int, int]) -> Rig:
    """The rig of the simulator's sensors."""
    cameras = {
        name: Camera(sensor.intrinsic, sensor.to_ego, size)
        for name, sensor in sensors.items()
        if isinstance(sensor, simulated.Camera)
    }
    return Rig(cameras)


def simulated_rigs(number: int) -> list[Rig]:
    """Rigs like those of nuScenes, drawn by the simulator."""
    return [rig_of(simulated.sample_rig(SIZE, np.random.default_rng(seed)), SIZE) for seed in range(number)]


def other_rigs(number: int) -> list[Rig]:
    """Rigs of one to seven cameras of any lens, on cars and trucks, upright or wide images, some looking down."""
    return [draw_rig(ARRANGEMENTS[seed % len(ARRANGEMENTS)], np.random.default_rng(seed)) for seed in range(number)]


def draw_rig(yaws: dict[str, float], rng: np.random.Generator) -> Rig:
    """Draw heights, lenses, image sizes and small errors of the mounts; the yaws in degrees are given."""
    height, length, half_width = rng.uniform(1.0, 3.2), rng.uniform(1.5, 4.0), rng.uniform(0.4, 1.1)
    pitch = rng.choice([0.0, 5.0, 15.0])
    sizes = [(1600, 900), (1920, 1280), (1550, 2048), (640, 480)]
    cameras = {}
    for name, yaw in yaws.items():
        width, high = sizes[rng.integers(len(sizes))]
        angles = np.array([yaw, pitch, 0.0]) + rng.normal(0, (1.5, 1.0, 0.7))
        position = (
            length * (0.5 + 0.5 * np.cos(np.deg2rad(yaw))),
            half_width * np.sin(np.deg2rad(yaw)),
            height + rng.normal(0, 0.05),
        )
        focal = max(width, high) / 2 / np.tan(np.deg2rad(rng.uniform(40, 110)) / 2)
        centre = np.array([width, high]) * (0.5 + rng.normal(0, 0.01, 2))
        cameras[name] = Camera(pinhole(focal, focal, *centre), camera_pose(angles, position), (width, high))
    return Rig(cameras)


def camera_pose(angles: Sequence[float] | np.ndarray, position: Sequence[float]) -> np.ndarray:
    """The camera2ego (4, 4) of yaw to the left, pitch down and roll to the right, degrees."""
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler('ZYX', angles, degrees=True).as_matrix()
    pose[:3, 3] = position
    return pose @ OPTICAL_TO_FORWARD


def rendered_drive(index: int, frames: range) -> tuple[Rig, list[dict[str, np.ndarray]], np.ndarray]:
    """Render some keyframes of a scene of the simulator: its rig, the images by camera and the poses (n, 3)."""
    size, seed = (400, 224), 3
    scenario = build_scenario('scene', index, frames.stop, seed, size)
    renderer, rng = SceneRenderer(scenario, size, seed), np.random.default_rng(0)
    rig, keyframes = rig_of(scenario.rig, size), scenario.keyframes[frames.start : frames.stop]
    images = [{name: renderer.render(name, int(time), rng)[0] for name in rig.cameras} for time in keyframes]
    return rig, images, scenario.ego_poses(keyframes)


def recorded_frame(info: dict, root: Path) -> StreamFrame:
    """Return an entry of an info file as a user would give it: images, rig, pose, time, what was recorded, scene."""
    return StreamFrame(
        {name: cv2.imread(str(root / image['img_path'])) for name, image in info['images'].items()},
        Rig.from_info(info),
        np.array(info['ego2global']),
        info['timestamp'],
        np.array(info['can_bus'])[3:16],
        info['scene_token'],
    )
