"""Checks of all entries of an info file at once: keys, shapes, finite numbers, rotations, sizes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from bevformer_plugin.errors import InputError
from bevformer_plugin.geometry import is_rigid

from .numeric_checks import LEAST_UPWARD, finite_rows, require_all, require_intrinsics, require_unit_quaternions

ENTRY_KEYS = {
    'token',
    'timestamp',
    'scene_token',
    'scene_name',
    'prev',
    'next',
    'frame_idx',
    'ego2global',
    'can_bus',
    'lidar_points',
    'images',
    'instances',
}
# Types of what is no number; the checks of numbers look into these.
ENTRY_TYPES = {
    **dict.fromkeys(('token', 'scene_token', 'scene_name', 'prev', 'next'), str),
    **dict.fromkeys(('lidar_points', 'images'), dict),
    'instances': list,
}
IMAGE_KEYS = {'img_path', 'cam2img', 'lidar2cam', 'height', 'width'}
INSTANCE_KEYS = {
    'bbox_label_3d',
    'bbox_3d',
    'bbox_3d_isvalid',
    'velocity',
    'num_lidar_pts',
    'num_radar_pts',
    'visibility',
}
SHORTEST_GAP = 1e-3  # seconds between frames of a scene; a shorter gap means that timestamps are in another unit
LARGEST_DEVIATION = 20.0  # degrees; a vehicle turns by less between the timestamps of LiDAR and camera


def check_entries(entries: list[dict], categories: dict[str, int], path: str | Path) -> None:
    """Refuse entries that lack something or hold impossible numbers.

    A velocity may be NaN, which means unknown: the object was annotated in one keyframe only.

    Args:
        entries: in this plugin's format.
        categories: label of each class name.
        path: the file, which errors name.

    Raises:
        InputError: naming file, sample, camera or box, and field of the first one.
    """
    _require_keys(entries, ENTRY_KEYS, lambda index: f'{path}: sample {entries[index].get("token", index)}')
    _require_types(entries, path)
    if len({entry['token'] for entry in entries}) < len(entries):
        raise InputError(f'{path} holds a sample twice: make it again with tools/create_data.py')

    def named(field: str) -> Callable[[int], str]:
        return lambda index: f'{path}: sample {entries[index]["token"]}: {field}'

    finite_rows([entry['timestamp'] for entry in entries], (), named('timestamp'))
    _check_gaps(entries, path)
    poses = _check_poses([entry['ego2global'] for entry in entries], named('ego2global'))
    _require_upright(poses, named('ego2global'))
    _require_keys([entry['lidar_points'] for entry in entries], {'lidar2ego'}, named('lidar_points'))
    mounts = _check_poses([entry['lidar_points']['lidar2ego'] for entry in entries], named('lidar2ego'))
    _require_upright(mounts, named('lidar2ego'))
    can_bus = finite_rows([entry['can_bus'] for entry in entries], (18,), named('can_bus'))
    require_unit_quaternions(can_bus[:, 3:7], named('rotation in can_bus'))
    _check_images(entries, path)
    _check_instances(entries, categories, path)


def _check_images(entries: list[dict], path: str | Path) -> None:
    """Refuse entries with broken camera images; arguments and errors are those of :func:`check_entries`."""
    views = [(entry['token'], name, image) for entry in entries for name, image in entry['images'].items()]
    images = [image for _, _, image in views]

    def named(field: str) -> Callable[[int], str]:
        return lambda index: f'{path}: sample {views[index][0]}, {views[index][1]}: {field}'

    without = [entry['token'] for entry in entries if not entry['images']]
    if without:
        raise InputError(f'{path}: sample {without[0]} has no images: make it again with tools/create_data.py')
    _require_keys(images, IMAGE_KEYS, named('image'))
    sizes = finite_rows([[image['width'], image['height']] for image in images], (2,), named('width, height'))
    matrices = finite_rows([image['cam2img'] for image in images], (3, 3), named('cam2img'))
    require_intrinsics(matrices, sizes, named('cam2img'))
    _check_poses([image['lidar2cam'] for image in images], named('lidar2cam'))
    _check_extrinsics(entries, path)


def _check_extrinsics(entries: list[dict], path: str | Path) -> None:
    """Refuse a ``lidar2cam`` whose rotation contradicts ``lidar2ego`` and ``cam2ego``, if an entry has the latter.

    ``lidar2cam`` may differ from these two by the vehicle's motion between the timestamps of the sensors only.

    Raises:
        InputError: naming sample, camera and the angle between them.
    """
    views = [
        (entry, name, image) for entry in entries for name, image in entry['images'].items() if 'cam2ego' in image
    ]
    if not views:
        return

    def named(field: str) -> Callable[[int], str]:
        return lambda index: f'{path}: sample {views[index][0]["token"]}, {views[index][1]}: {field}'

    cam2ego = _check_poses([image['cam2ego'] for _, _, image in views], named('cam2ego'))[:, :3, :3]
    lidar2cam = np.array([image['lidar2cam'] for _, _, image in views])[:, :3, :3]
    lidar2ego = np.array([entry['lidar_points']['lidar2ego'] for entry, _, _ in views])[:, :3, :3]
    between = lidar2cam.transpose(0, 2, 1) @ cam2ego.transpose(0, 2, 1) @ lidar2ego
    angles = np.degrees(np.arccos(np.clip((np.trace(between, axis1=1, axis2=2) - 1) / 2, -1, 1)))
    complaint = (
        'turns by other degrees than cam2ego and lidar2ego of the entry (is one transposed or inverted?), the angle is'
    )
    require_all(angles <= LARGEST_DEVIATION, angles.round(1).tolist(), named('lidar2cam'), complaint)


def _check_gaps(entries: list[dict], path: str | Path) -> None:
    """Refuse frames of a scene that are less than a millisecond apart.

    Raises:
        InputError: naming the sample and the gap.
    """
    time_before: dict[str, float] = {}  # of each scene
    for entry in sorted(entries, key=lambda entry: entry['timestamp']):
        gap = entry['timestamp'] - time_before.get(entry['scene_token'], -np.inf)
        if gap < SHORTEST_GAP:
            raise InputError(
                f'{path}: sample {entry["token"]} is {gap:g} s after the sample before it in its scene: times are '
                'in seconds (in the published files: microseconds)'
            )
        time_before[entry['scene_token']] = entry['timestamp']


def in_time_order(entries: list[dict]) -> bool:
    """Return whether entries are ordered scene by scene, and in each scene by time."""
    ended, scene, time = set(), None, -np.inf
    for entry in entries:
        if entry['scene_token'] != scene:
            ended.add(scene)
            scene, time = entry['scene_token'], -np.inf
        if scene in ended or entry['timestamp'] <= time:
            return False
        time = entry['timestamp']
    return True


def _check_instances(entries: list[dict], categories: dict[str, int], path: str | Path) -> None:
    """Refuse entries with broken boxes; arguments and errors are those of :func:`check_entries`."""
    owners = [(entry['token'], number) for entry in entries for number in range(len(entry['instances']))]
    instances = [instance for entry in entries for instance in entry['instances']]

    def named(field: str) -> Callable[[int], str]:
        return lambda index: f'{path}: sample {owners[index][0]}: {field} of box {owners[index][1]}'

    def column(key: str) -> list:
        return [instance[key] for instance in instances]

    _require_keys(instances, INSTANCE_KEYS, named('entry'))
    boxes = finite_rows(column('bbox_3d'), (7,), named('bbox_3d'))
    require_all((boxes[:, 3:6] > 0).all(1), column('bbox_3d'), named('bbox_3d'), 'has a size that is not positive')
    finite_rows(column('velocity'), (2,), named('velocity'), unknown_as_nan=True)
    labels = finite_rows(column('bbox_label_3d'), (), named('bbox_label_3d'))
    is_known = np.isin(labels, list(categories.values()))
    require_all(is_known, column('bbox_label_3d'), named('bbox_label_3d'), 'is no label of the categories')
    for key in ('num_lidar_pts', 'num_radar_pts'):
        counts = finite_rows(column(key), (), named(key))
        require_all(counts >= 0, column(key), named(key), 'is no number of points, 0 or more')
    levels = finite_rows(column('visibility'), (), named('visibility'))
    require_all(np.isin(levels, range(5)), column('visibility'), named('visibility'), 'is no level, 0 to 4')


def _require_keys(rows: list, keys: set[str], describe: Callable[[int], str]) -> None:
    """Refuse rows that are not dicts with all of the keys; ``describe`` names a row by its number."""
    for index, row in enumerate(rows):
        if not isinstance(row, dict) or not keys <= row.keys():
            missing = sorted(keys - row.keys()) if isinstance(row, dict) else sorted(keys)
            raise InputError(f'{describe(index)} lacks {", ".join(missing)}: make infos with tools/create_data.py')


def _require_types(entries: list[dict], path: str | Path) -> None:
    """Refuse entries whose names are no text, or whose parts are no dicts and lists."""
    for key, kind in ENTRY_TYPES.items():
        for entry in entries:
            if not isinstance(entry[key], kind):
                found = f'{path}: sample {entry["token"]}: {key} is {entry[key]!r}'
                raise InputError(f'{found}, not a {kind.__name__}: make infos with tools/create_data.py')


def _check_poses(values: list, describe: Callable[[int], str]) -> np.ndarray:
    """Return rigid motions as an array (n, 4, 4).

    Raises:
        InputError: a value is not finite, its rotation is not orthogonal or mirrors, or its last row is not
            0, 0, 0, 1.
    """
    matrices = finite_rows(values, (4, 4), describe)
    require_all(is_rigid(torch.from_numpy(matrices)).numpy(), values, describe, 'is no rotation and translation')
    return matrices


def _require_upright(matrices: np.ndarray, describe: Callable[[int], str]) -> None:
    """Refuse motions (n, 4, 4) that tip the z axis over by more than 60 degrees."""
    upright = matrices[:, 2, 2] > LEAST_UPWARD
    require_all(upright, matrices.tolist(), describe, 'tips the z axis over, which points up')
