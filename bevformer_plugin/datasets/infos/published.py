"""The published BEVFormer's info files (mmdetection3d before 1.1, ``dict(infos, metadata)``) in our format."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from nuscenes.utils.geometry_utils import transform_matrix
from PIL import Image
from pyquaternion import Quaternion

from bevformer_plugin.errors import InputError
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
CENTRAL = (0.4, 0.6)  # where, in widths and heights of the image, the principal point of an unchanged camera lies
LONGER_THAN_WIDE = ('car', 'truck', 'trailer', 'bus', 'construction_vehicle', 'bicycle', 'motorcycle')
WIDER_THAN_LONG = ('barrier',)
CLEAR_MAJORITY = 0.8
BOX_CONVENTIONS = ('old', 'new')


def convert_published(infos: list[dict], root, version: str, box_convention: str | None = None) -> list[dict]:
    """Entries of ours from those of a published file.

    The recorded channels of its CAN-bus vector are those of the message after the keyframe ('official_v1'); the pose
    channels are filled from the vehicle's pose.

    The file does not say how large images are. Where a camera's principal point is that of a 1600 x 900 image, they
    are of that size; for other cameras the first image found under ``root`` says it, and must agree with the
    calibration.

    Args:
        infos: of the file.
        root: nuScenes dataroot, or None.
        version: nuScenes version.
        box_convention: 'old' for boxes of mmdetection3d before 1.0, (x, y, z, w, l, h, -yaw - pi / 2); 'new' for
            later ones, (x, y, z, l, w, h, yaw); both about the centre. None finds out: vehicles and cycles are longer
            than wide, barriers wider than long.

    Raises:
        InputError: a sample lacks what it needs; images are of another size than their calibration, or their size
            cannot be known; ``box_convention`` is unknown, missing or contradicts the boxes.
    """
    names = _scene_names(root, version)
    old_boxes = _boxes_are_old(infos, box_convention)
    sizes, entries = {}, []
    for info in infos:
        with _naming_sample(info):
            sizes.update(_image_sizes(infos, info['cams'].keys() - sizes.keys(), root))
            entries.append(_entry(info, names, sizes, old_boxes))
    return entries


@contextmanager
def _naming_sample(info: dict) -> Iterator[None]:
    """Name the sample in errors about what it holds."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError, ZeroDivisionError, ValueError) as error:
        raise InputError(
            f'sample {info.get("token")} of the info file cannot be read ({type(error).__name__}: {error})'
        ) from error


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
            'visibility': 0,
            'instance_token': '',
            'attribute': '',
        }
        for box, name, velocity, lidar, radar, valid in rows
        if name in CATEGORIES
    ]


def _boxes_are_old(infos: list[dict], box_convention: str | None) -> bool:
    """Whether the fourth number of a box is its width, by the classes whose longer side is known.

    Raises:
        InputError: see :func:`convert_published`.
    """
    if box_convention not in (None, *BOX_CONVENTIONS):
        raise InputError(f'box_convention must be one of {", ".join(BOX_CONVENTIONS)}, not {box_convention!r}')
    boxes = []
    for info in infos:
        with _naming_sample(info):
            rows = zip(info.get('gt_boxes', ()), info.get('gt_names', ()), strict=True)
            boxes += [(name, box[3], box[4]) for box, name in rows]
    votes = [first < second for name, first, second in boxes if name in LONGER_THAN_WIDE]
    votes += [first > second for name, first, second in boxes if name in WIDER_THAN_LONG]
    old = sum(votes) / len(votes) if votes else 0.5
    if old > CLEAR_MAJORITY or old < 1 - CLEAR_MAJORITY:
        found = 'old' if old > CLEAR_MAJORITY else 'new'
        if box_convention not in (None, found):
            raise InputError(
                f'the boxes of {len(votes)} vehicles and barriers are in the {found} convention, not the '
                f'{box_convention} one: leave the convention out'
            )
        return found == 'old'
    if box_convention is None and boxes:
        raise InputError(
            f'the convention of the {len(boxes)} boxes is not told by their classes (vehicles are longer than wide, '
            'barriers wider than long): convert the file with tools/create_data.py convert --box-convention old '
            '(mmdetection3d before 1.0) or new'
        )
    return box_convention == 'old'


def _below_root(path: str) -> str:
    """'./data/nuscenes/samples/CAM_FRONT/a.jpg' -> 'samples/CAM_FRONT/a.jpg'."""
    return '/'.join(Path(path).parts[-3:])


def _scene_names(root, version: str) -> dict[str, str]:
    table = Path(root or '', version, 'scene.json')
    return {row['token']: row['name'] for row in json.loads(table.read_text())} if root and table.is_file() else {}


def _image_sizes(infos: list[dict], cameras: Iterable[str], root) -> dict[str, tuple[int, int]]:
    """Width and height of cameras' images, see :func:`convert_published`."""
    sizes = {}
    for name in cameras:
        views = [info['cams'][name] for info in infos if name in info['cams']]
        centre = np.asarray(views[0]['cam_intrinsic'])[:2, 2]
        if _is_centre(centre, NUSCENES_IMAGE_SIZE):
            sizes[name] = NUSCENES_IMAGE_SIZE
            continue
        paths = (Path(root, _below_root(view['data_path'])) for view in views if root)
        found = next((path for path in paths if path.is_file()), None)
        if found is None:
            raise InputError(
                f'the size of the images of {name} is not known: its principal point {centre} is not that of a '
                '1600 x 900 image; give the dataroot that holds the images (--root)'
            )
        with Image.open(found) as image:
            sizes[name] = image.size
        if not _is_centre(centre, sizes[name]):
            raise InputError(
                f'{found} is {image.size[0]} x {image.size[1]} pixels, but the calibration of {name} has its '
                f'principal point at {centre}: give the images that the calibration is for'
            )
    return sizes


def _is_centre(point: np.ndarray, size: tuple[int, int]) -> bool:
    low, high = CENTRAL
    return bool(((point > np.multiply(low, size)) & (point < np.multiply(high, size))).all())
