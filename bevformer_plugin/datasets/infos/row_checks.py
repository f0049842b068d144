"""Checks of rows of the nuScenes tables: broken chains, poses, sensor mounts, times and annotations are refused."""

import itertools
from collections.abc import Callable

import numpy as np

from bevformer_plugin.errors import InputError

from .numeric_checks import (
    finite_rows,
    require_all,
    require_intrinsics,
    require_unit_quaternions,
    require_upright_quaternions,
)

LARGEST_CLOCK_ERROR = 600_000_000  # microseconds from a sample to what belongs to it; more is of another clock or unit
SHORTEST_GAP = 1000  # microseconds between keyframes; a shorter gap means that timestamps are in another unit
LONGEST_GAP = 60_000_000  # microseconds between keyframes of a scene; a longer gap means that they are nanoseconds


def check_pace(samples: list[dict], scene: dict) -> None:
    """Refuse a scene none of whose samples follows the one before it within a minute.

    Args:
        samples: rows of ``sample``, in time order.
        scene: their row of ``scene``.

    Raises:
        InputError: naming the scene and its shortest gap.
    """
    times = [sample['timestamp'] for sample in samples]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    if gaps and min(gaps) > LONGEST_GAP:
        raise InputError(
            f'the keyframes of {scene["name"]} are {min(gaps) / 1e6:g} s or more apart, if timestamps in sample.json '
            'are microseconds: write them as such (nanoseconds are a thousand times as many)'
        )


def check_successor(previous: dict, sample: dict, scene: dict) -> None:
    """Refuse a sample that is not later than the one before it in its scene.

    Args:
        previous, sample: rows of ``sample``, the second of which follows the first.
        scene: their row of ``scene``.

    Raises:
        InputError: naming the sample and both timestamps.
    """
    if sample['timestamp'] - previous['timestamp'] < SHORTEST_GAP:
        raise InputError(
            f'sample {sample["token"]} of {scene["name"]} has timestamp {sample["timestamp"]}, but the sample before '
            f'it {previous["timestamp"]}: sample.json holds microseconds, which grow along next'
        )


def check_scene_of(sample: dict, scene: dict) -> None:
    """Refuse a sample that is in the chain of one scene and of another by its ``scene_token``.

    Raises:
        InputError: naming sample, chain and scene.
    """
    if sample['scene_token'] != scene['token']:
        raise InputError(
            f'sample {sample["token"]} is in the chain of {scene["name"]}, but its scene_token in sample.json is '
            f'{sample["scene_token"]}: next of the last sample of a scene is empty'
        )


def check_all_reached(scene: dict, reached: int, total: int) -> None:
    """Refuse a scene whose chain of samples leaves some of them out.

    Args:
        scene: a row of ``scene``.
        reached: number of samples that its chain reaches.
        total: number of samples that name the scene.

    Raises:
        InputError: naming the scene and both numbers.
    """
    if reached < total:
        raise InputError(
            f'{scene["name"]} has {total} samples by scene_token in sample.json, but its chain from '
            f'first_sample_token along next reaches {reached}: mend next and first_sample_token'
        )


def check_transform(row: dict, table: str, where: str) -> None:
    """Refuse a row of ``ego_pose`` or ``calibrated_sensor`` that is broken, see :func:`check_transforms`."""
    check_transforms([row], table, lambda _: where)


def check_transforms(rows: list[dict], table: str, where: Callable[[int], str]) -> None:
    """Refuse rows of ``ego_pose`` or ``calibrated_sensor`` whose translation or rotation is broken.

    Args:
        rows: with ``translation`` (3, metres) and ``rotation`` (quaternion w, x, y, z).
        table: name of their table; a pose must also be upright.
        where: names the row of a given number in errors, such as by sample and channel.

    Raises:
        InputError: a number is missing or not finite, the quaternion is not of length 1, or it tips the vehicle over
            (``ego_pose``).
    """

    def rotation(index: int) -> str:
        return f'{where(index)}: rotation in {table}.json'

    finite_rows([row['translation'] for row in rows], (3,), lambda i: f'{where(i)}: translation in {table}.json')
    rotations = finite_rows([row['rotation'] for row in rows], (4,), rotation)
    require_unit_quaternions(rotations, rotation)
    if table == 'ego_pose':
        require_upright_quaternions(rotations, rotation)


def check_intrinsic(mount: dict, record: dict, where: str) -> None:
    """Refuse a camera matrix that does not fit the size of the camera's images.

    Args:
        mount: the camera's row of ``calibrated_sensor``.
        record: a row of ``sample_data`` of the camera.
        where: names the camera in errors.

    Raises:
        InputError: the matrix or the size is no numbers, or they do not fit each other.
    """

    def describe(_: int) -> str:
        return f'{where}: camera_intrinsic in calibrated_sensor.json'

    size = [record['width'], record['height']]
    sizes = finite_rows([size], (2,), lambda _: f'{where}: width, height in sample_data.json')
    require_intrinsics(finite_rows([mount['camera_intrinsic']], (3, 3), describe), sizes, describe)


def check_lidar_mount(row: dict, where: str) -> None:
    """Refuse a row of ``calibrated_sensor`` that is broken or tips a LiDAR over.

    The LiDAR's frame must be upright, because the heights of boxes are given in it.

    Raises:
        InputError: as :func:`check_transform`; or the LiDAR's z axis does not point up.
    """
    check_transform(row, 'calibrated_sensor', where)
    require_upright_quaternions(np.array([row['rotation']]), lambda _: f'{where}: rotation in calibrated_sensor.json')


def check_sensor_times(sample: dict, records: list[dict], most: int = LARGEST_CLOCK_ERROR) -> None:
    """Refuse key frames that are further from their sample in time than any delay.

    Args:
        sample: a row of ``sample``.
        records: its rows of ``sample_data``, one for each channel.
        most: microseconds that they may be apart.

    Raises:
        InputError: naming sample, channel and both timestamps.
    """
    times = finite_rows(
        [record['timestamp'] for record in records],
        (),
        lambda i: f'sample {sample["token"]}, {records[i]["channel"]}: timestamp in sample_data.json',
    )
    far = np.flatnonzero(np.abs(times - sample['timestamp']) > most)
    if len(far):
        record = records[far[0]]
        raise InputError(
            f'sample {sample["token"]} has timestamp {sample["timestamp"]} in sample.json, its key frame of '
            f'{record["channel"]} {record["timestamp"]} in sample_data.json: both are in microseconds of one clock '
            f'and at most {most} apart'
        )


def check_annotations(rows: list[dict]) -> None:
    """Refuse annotations with an impossible centre, size, rotation, number of points or attribute.

    Raises:
        InputError: naming sample, field and annotation of the first one.
    """

    def named(key: str) -> Callable[[int], str]:
        return lambda i: f'sample {rows[i]["sample_token"]}: {key} of {rows[i]["token"]} in sample_annotation.json'

    def column(key: str) -> list:
        return [row.get(key) for row in rows]

    finite_rows(column('translation'), (3,), named('translation'))
    sizes = finite_rows(column('size'), (3,), named('size'))
    require_all((sizes > 0).all(1), column('size'), named('size'), 'is not positive')
    rotations = finite_rows(column('rotation'), (4,), named('rotation'))
    require_unit_quaternions(rotations, named('rotation'))
    require_upright_quaternions(rotations, named('rotation'))
    for key in ('num_lidar_pts', 'num_radar_pts'):
        is_count = np.array([type(value) is int and value >= 0 for value in column(key)], dtype=bool)
        require_all(is_count, column(key), named(key), 'is no number of points, 0 or more')
    is_single = np.array([len(value) <= 1 for value in column('attribute_tokens')], dtype=bool)
    require_all(is_single, column('attribute_tokens'), named('attribute_tokens'), 'has more than one attribute')
