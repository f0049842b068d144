"""Conversion of the published BEVFormer's info files, ``dict(infos, metadata)`` as of mmdetection3d before 1.1."""

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
CENTRAL = (0.4, 0.6)  # limits, in widths and heights of the image, of a camera's principal point
LONGER_THAN_WIDE = ('car', 'truck', 'trailer', 'bus', 'construction_vehicle', 'bicycle', 'motorcycle')
WIDER_THAN_LONG = ('barrier',)
CLEAR_MAJORITY = 0.8  # share of boxes that must agree on their convention
BOX_CONVENTIONS = ('old', 'new')


def convert_published(
    infos: list[dict], root: str | Path | None, version: str, box_convention: str | None = None
) -> list[dict]:
    """Convert the entries of a file of the published BEVFormer to this plugin's format.

    The recorded channels of a CAN-bus vector stay as they are, those of the message after the keyframe
    ('official_v1'); the pose channels are filled from the vehicle's pose.

    The file does not say how large images are. If a camera's principal point lies in the middle of a 1600 x 900 image,
    its images are taken to be of that size; for another camera the first image found under ``root`` gives the size,
    which must agree with the calibration.

    Args:
        infos: entries of the file.
        root: nuScenes dataroot, or None.
        version: nuScenes version.
        box_convention: 'old' for boxes of mmdetection3d before 1.0, (x, y, z, w, l, h, -yaw - pi / 2); 'new' for
            later ones, (x, y, z, l, w, h, yaw); z is the centre's in both. None tells it from the boxes: vehicles and
            cycles are longer than wide, barriers wider than long.

    Raises:
        InputError: a sample lacks something; images are of another size than their calibration, or their size is not
            known; ``box_convention`` is unknown, is needed, or contradicts the boxes.
    """
    names = _scene_names(root, version)
    are_boxes_old = _boxes_are_old(infos, box_convention)
    sizes: dict[str, tuple[int, int]] = {}
    entries: list[dict] = []
    for info in infos:
        with _naming_sample(info):
            sizes.update(_image_sizes(infos, info['cams'].keys() - sizes.keys(), root))
            entries.append(_entry(info, names, sizes, are_boxes_old))
    return entries


@contextmanager
def _naming_sample(info: dict) -> Iterator[None]:
    """Turn an error about the content of a sample, raised in the block, into one that names the sample."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError, ZeroDivisionError, ValueError) as error:
        raise InputError(
            f'sample {info.get("token")} of the info file cannot be read ({type(error).__name__}: {error})'
        ) from error


def _entry(info: dict, names: dict[str, str], sizes: dict[str, tuple[int, int]], are_boxes_old: bool) -> dict:
    """Convert one entry; see :func:`_scene_names`, :func:`_image_sizes` and :func:`_boxes_are_old`."""
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
        'instances': _instances(info, are_boxes_old),
    }


def _image(camera: dict, size: tuple[int, int]) -> dict:
    """Convert one camera, whose images are of ``size`` (width, height)."""
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


def _instances(info: dict, are_boxes_old: bool) -> list[dict]:
    """Convert the boxes of the ten detection classes of an entry."""
    if 'gt_boxes' not in info:  # as in the test split, which has no annotations
        return []
    boxes = torch.as_tensor(np.asarray(info['gt_boxes'], dtype=np.float64).reshape(-1, 7))
    if are_boxes_old:
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
    """Return whether boxes are in the old convention, in which the fourth number of a box is its width.

    Boxes of classes whose longer side is known tell it, if a clear majority of them agrees.

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
    looks_old = [fourth < fifth for name, fourth, fifth in boxes if name in LONGER_THAN_WIDE]
    looks_old += [fourth > fifth for name, fourth, fifth in boxes if name in WIDER_THAN_LONG]
    share_of_old = sum(looks_old) / len(looks_old) if looks_old else 0.5
    if share_of_old > CLEAR_MAJORITY or share_of_old < 1 - CLEAR_MAJORITY:
        found = 'old' if share_of_old > CLEAR_MAJORITY else 'new'
        if box_convention not in (None, found):
            raise InputError(
                f'the boxes of {len(looks_old)} vehicles and barriers are in the {found} convention, not the '
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
    """Make a path relative to the dataroot: './data/nuscenes/samples/CAM_FRONT/a.jpg' -> 'samples/CAM_FRONT/a.jpg'."""
    return '/'.join(Path(path).parts[-3:])


def _scene_names(root: str | Path | None, version: str) -> dict[str, str]:
    """Read the names of scenes by their tokens; there are none without a dataroot that has tables."""
    table = Path(root or '', version, 'scene.json')
    return {row['token']: row['name'] for row in json.loads(table.read_text())} if root and table.is_file() else {}


def _image_sizes(infos: list[dict], cameras: Iterable[str], root: str | Path | None) -> dict[str, tuple[int, int]]:
    """Find out width and height of the images of cameras, see :func:`convert_published`."""
    sizes: dict[str, tuple[int, int]] = {}
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
    """Return whether a point (2,) lies near the middle of an image of ``size`` (width, height)."""
    low, high = CENTRAL
    return bool(((point > np.multiply(low, size)) & (point < np.multiply(high, size))).all())
