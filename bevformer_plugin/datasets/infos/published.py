"""The published BEVFormer's info files (mmdetection3d before 1.1, ``dict(infos, metadata)``) in our format."""

import json
from pathlib import Path

import numpy as np
import torch
from nuscenes.utils.geometry_utils import transform_matrix
from PIL import Image
from pyquaternion import Quaternion

from bevformer_plugin.geometry import boxes_from_old_convention

from .can_bus import RECORDED, can_bus_vector
from .nuscenes_tables import CATEGORIES, order_cameras

PUBLISHED_KEYS = {
    'lidar_path',
    'token',
    'prev',
    'next',
    'can_bus',
    'frame_idx',
    'cams',
    'scene_token',
    'lidar2ego_translation',
    'lidar2ego_rotation',
    'ego2global_translation',
    'ego2global_rotation',
    'timestamp',
}
NUSCENES_IMAGE_SIZE = (1600, 900)  # width, height
LONGER_THAN_WIDE = ('car', 'truck', 'trailer', 'bus', 'bicycle', 'motorcycle')


def convert_published(infos: list[dict], root, version: str) -> list[dict]:
    """Entries of ours from those of a published file.

    The recorded channels of its CAN-bus vector are those of the message after the keyframe ('official_v1'); the pose
    channels are filled from the vehicle's pose. Boxes of mmdetection3d before 1.0 are (x, y, z, w, l, h, -yaw - pi /
    2), later ones (x, y, z, l, w, h, yaw), both about the centre; which of them a file holds is told by its vehicles,
    which are longer than wide. Image sizes are read from the first image found under ``root``, else they are nuScenes'
    1600 x 900.
    """
    names = _scene_names(root, version)
    sizes = _image_sizes(infos, root)
    old_boxes = _boxes_are_old(infos)
    return [_entry(info, names, sizes, old_boxes) for info in infos]


def _entry(info: dict, names: dict, sizes: dict, old_boxes: bool) -> dict:
    lidar2ego = transform_matrix(info['lidar2ego_translation'], Quaternion(info['lidar2ego_rotation']))
    ego2global = transform_matrix(info['ego2global_translation'], Quaternion(info['ego2global_rotation']))
    return {
        'token': info['token'],
        'timestamp': info['timestamp'] / 1e6,
        'scene_token': info['scene_token'],
        'scene_name': names.get(info['scene_token'], info['scene_token']),
        'prev': info['prev'],
        'next': info['next'],
        'frame_idx': info['frame_idx'],
        'ego2global': ego2global.tolist(),
        'can_bus': can_bus_vector(
            info['ego2global_translation'], info['ego2global_rotation'], info['can_bus'][RECORDED]
        ),
        'lidar_points': {
            'lidar_path': _below_root(info['lidar_path']),
            'num_pts_feats': 5,
            'lidar2ego': lidar2ego.tolist(),
        },
        'images': {name: _image(info['cams'][name], sizes[name]) for name in order_cameras(info['cams'])},
        'instances': _instances(info, old_boxes),
    }


def _image(camera: dict, size: tuple[int, int]) -> dict:
    cam2lidar = np.eye(4)
    cam2lidar[:3, :3] = camera['sensor2lidar_rotation']
    cam2lidar[:3, 3] = camera['sensor2lidar_translation']
    cam2ego = transform_matrix(camera['sensor2ego_translation'], Quaternion(camera['sensor2ego_rotation']))
    return {
        'img_path': _below_root(camera['data_path']),
        'cam2img': np.asarray(camera['cam_intrinsic']).tolist(),
        'cam2ego': cam2ego.tolist(),
        'lidar2cam': np.linalg.inv(cam2lidar).tolist(),
        'sample_data_token': camera['sample_data_token'],
        'timestamp': camera['timestamp'] / 1e6,
        'height': size[1],
        'width': size[0],
    }


def _instances(info: dict, old_boxes: bool) -> list[dict]:
    if 'gt_boxes' not in info:  # the test split
        return []
    boxes = torch.as_tensor(np.asarray(info['gt_boxes'], dtype=np.float64).reshape(-1, 7))
    if old_boxes:
        boxes = boxes_from_old_convention(boxes)
    rows = zip(
        boxes.tolist(),
        info['gt_names'],
        info['gt_velocity'],
        info['num_lidar_pts'],
        info['num_radar_pts'],
        info['valid_flag'],
        strict=True,
    )
    return [
        {
            'bbox_label_3d': CATEGORIES[name],
            'bbox_label': CATEGORIES[name],
            'bbox_3d': box,
            'bbox_3d_isvalid': bool(valid),
            'velocity': [float(value) for value in velocity],
            'num_lidar_pts': int(lidar),
            'num_radar_pts': int(radar),
            'instance_token': '',
            'attribute': '',
        }
        for box, name, velocity, lidar, radar, valid in rows
        if name in CATEGORIES
    ]


def _boxes_are_old(infos: list[dict]) -> bool:
    """Whether the fourth number of a box is its width: for most vehicles it is less than the fifth."""
    sizes = [
        box[3:5]
        for info in infos
        for box, name in zip(info.get('gt_boxes', ()), info.get('gt_names', ()), strict=True)
        if name in LONGER_THAN_WIDE
    ]
    return sum(first < second for first, second in sizes) * 2 >= len(sizes)


def _below_root(path: str) -> str:
    """'./data/nuscenes/samples/CAM_FRONT/a.jpg' -> 'samples/CAM_FRONT/a.jpg'."""
    return '/'.join(Path(path).parts[-3:])


def _scene_names(root, version: str) -> dict[str, str]:
    table = Path(root or '', version, 'scene.json')
    return {row['token']: row['name'] for row in json.loads(table.read_text())} if root and table.is_file() else {}


def _image_sizes(infos: list[dict], root) -> dict[str, tuple[int, int]]:
    sizes = {}
    for name in {name for info in infos for name in info['cams']}:
        paths = (
            Path(root, _below_root(info['cams'][name]['data_path'])) for info in infos if root and name in info['cams']
        )
        found = next((path for path in paths if path.is_file()), None)
        if found is None:
            sizes[name] = NUSCENES_IMAGE_SIZE
            continue
        with Image.open(found) as image:
            sizes[name] = image.size
    return sizes
