"""Checks of rows of the nuScenes tables: broken poses, sensor mounts, times and annotations are refused."""

from collections.abc import Callable

import numpy as np

from bevformer_plugin.errors import InputError

from .numeric_checks import finite_rows, require_all, require_unit_quaternions, require_upright_quaternions

LONGEST_SENSOR_DELAY = 1_000_000  # microseconds from a sample to its key frames, which are all of one moment


def check_transform(row: dict, table: str, where: str) -> None:
    """Refuse a row of ``ego_pose`` or ``calibrated_sensor`` whose translation or rotation is broken.

    Args:
        row: with ``translation`` (3, metres) and ``rotation`` (quaternion w, x, y, z).
        table: name of its table; a pose must also be upright.
        where: sample and channel, which errors name.

    Raises:
        InputError: a number is missing or not finite, the quaternion is not of length 1, or it tips the vehicle over
            (``ego_pose``).
    """
    finite_rows([row['translation']], (3,), lambda _: f'{where}: translation in {table}.json')
    rotation = finite_rows([row['rotation']], (4,), lambda _: f'{where}: rotation in {table}.json')
    require_unit_quaternions(rotation, lambda _: f'{where}: rotation in {table}.json')
    if table == 'ego_pose':
        require_upright_quaternions(rotation, lambda _: f'{where}: rotation in {table}.json')


def check_lidar_mount(row: dict, where: str) -> None:
    """Refuse a row of ``calibrated_sensor`` that is broken or tips a LiDAR over.

    The LiDAR's frame must be upright, because the heights of boxes are given in it.

    Raises:
        InputError: as :func:`check_transform`; or the LiDAR's z axis does not point up.
    """
    check_transform(row, 'calibrated_sensor', where)
    require_upright_quaternions(np.array([row['rotation']]), lambda _: f'{where}: rotation in calibrated_sensor.json')


def check_sensor_times(sample: dict, records: list[dict]) -> None:
    """Refuse key frames that are more than a second from their sample.

    Args:
        sample: a row of ``sample``.
        records: its rows of ``sample_data``, one for each channel.

    Raises:
        InputError: naming sample, channel and both timestamps.
    """
    times = finite_rows(
        [record['timestamp'] for record in records],
        (),
        lambda i: f'sample {sample["token"]}, {records[i]["channel"]}: timestamp in sample_data.json',
    )
    far = np.flatnonzero(np.abs(times - sample['timestamp']) > LONGEST_SENSOR_DELAY)
    if len(far):
        record = records[far[0]]
        raise InputError(
            f'sample {sample["token"]} has timestamp {sample["timestamp"]} in sample.json, its key frame of '
            f'{record["channel"]} {record["timestamp"]} in sample_data.json: both are in microseconds of one clock '
            f'and at most {LONGEST_SENSOR_DELAY} apart'
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
