"""Numbers of tables that cannot be: times, poses, calibrations, boxes and CAN-bus messages, row by row."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from nuscenes.eval.detection.utils import category_to_detection_name

from bevformer_plugin.datasets.infos.can_bus import FARTHEST_MESSAGE, CanBusMessages, recorded_channels
from bevformer_plugin.datasets.infos.numeric_checks import finite_rows
from bevformer_plugin.datasets.infos.nuscenes_tables import LIDAR, check_visibility
from bevformer_plugin.datasets.infos.row_checks import (
    LONGEST_GAP,
    check_annotations,
    check_intrinsic,
    check_lidar_mount,
    check_sensor_times,
    check_transforms,
)
from bevformer_plugin.errors import InputError

from .every_fault import complaints, refusals
from .table_links import Indices, Tables

LONGEST_SENSOR_DELAY = 1_000_000  # microseconds from a sample to its key frames, and from a reading to its pose
LARGEST_SPEED = 60.0  # metres per second, of the vehicle between keyframes
LARGEST_DISTANCE = 1000.0  # metres from the vehicle to an annotated object


def time_faults(tables: Tables, indices: Indices) -> Iterator[str]:
    """Yield a complaint about times that are no numbers, of another moment, or far apart in a scene."""
    for name in ('sample', 'sample_data', 'ego_pose'):
        yield from refusals(_check_times(name), tables[name])
    samples, poses = indices['sample'], indices['ego_pose']
    keyed = [row for row in tables['sample_data'] if row['is_key_frame'] and row['sample_token'] in samples]
    yield from complaints(
        lambda row: check_sensor_times(samples[row['sample_token']], [row], LONGEST_SENSOR_DELAY), _far(keyed, samples)
    )
    for row in tables['sample_data']:
        pose = poses.get(row['ego_pose_token'])
        if pose is not None and abs(pose['timestamp'] - row['timestamp']) > LONGEST_SENSOR_DELAY:
            yield (
                f'sample_data {row["token"]} ({row["channel"]}) has timestamp {row["timestamp"]}, its ego_pose '
                f'{pose["timestamp"]}: a pose is that of its reading, at most {LONGEST_SENSOR_DELAY} microseconds off'
            )
    for row in tables['sample']:
        after = samples.get(row['next'])
        if after is not None and after['timestamp'] - row['timestamp'] > LONGEST_GAP:
            gap = (after['timestamp'] - row['timestamp']) / 1e6
            yield (
                f'sample {after["token"]} is {gap:g} s after the sample before it, if timestamps are microseconds: '
                'write them as such, or begin a new scene after a break'
            )


def _check_times(name: str) -> Callable[[Sequence[dict]], None]:
    """Return a check of rows of a table that refuses timestamps that are not finite numbers."""

    def check(rows: Sequence[dict]) -> None:
        finite_rows([row['timestamp'] for row in rows], (), lambda i: f'{name} {rows[i]["token"]}: timestamp')

    return check


def _far(records: list[dict], samples: dict[str, dict]) -> list[dict]:
    """Return the key frames that are not of their sample's moment, in one step, since most are."""
    times = np.array([row['timestamp'] for row in records], dtype=np.float64)
    wanted = np.array([samples[row['sample_token']]['timestamp'] for row in records], dtype=np.float64)
    return [records[index] for index in np.flatnonzero(np.abs(times - wanted) > LONGEST_SENSOR_DELAY)]


def pose_faults(tables: Tables, indices: Indices) -> Iterator[str]:
    """Yield a complaint about each pose that is no rotation and translation, and each jump of the vehicle."""
    yield from refusals(
        lambda rows: check_transforms(list(rows), 'ego_pose', _named('ego_pose', rows)), tables['ego_pose']
    )
    places = reference_places(tables, indices)
    samples = indices['sample']
    for row in tables['sample']:
        after = samples.get(row['next'])
        if after is None or row['token'] not in places or after['token'] not in places:
            continue
        seconds = (after['timestamp'] - row['timestamp']) / 1e6
        metres = float(np.linalg.norm(places[after['token']] - places[row['token']]))
        if seconds > 0 and metres > LARGEST_SPEED * seconds:
            yield (
                f'sample {after["token"]}: its vehicle is {metres:.1f} m from where it was {seconds:g} s before, '
                f'{metres / seconds:.0f} m/s: ego_pose.json holds metres of one fixed frame in each scene'
            )


def reference_places(tables: Tables, indices: Indices) -> dict[str, np.ndarray]:
    """Return where the vehicle is, (3,) metres in the global frame, by the token of a sample.

    It is the place at the sample's LiDAR or, without one, at any of its key frames; samples without a usable pose are
    left out.
    """
    chosen: dict[str, dict] = {}
    for row in tables['sample_data']:
        if row['is_key_frame'] and (row['channel'] == LIDAR or row['sample_token'] not in chosen):
            chosen[row['sample_token']] = row
    places: dict[str, np.ndarray] = {}
    for token, row in chosen.items():
        place = indices['ego_pose'].get(row['ego_pose_token'], {}).get('translation')
        try:
            places[token] = finite_rows([place], (3,), str)[0]
        except InputError:
            continue  # complained about as a row of ego_pose
    return places


def calibration_faults(tables: Tables, indices: Indices) -> Iterator[str]:
    """Yield a complaint about each broken sensor mount, and each camera matrix that does not fit the images' size."""
    mounts, sensors = tables['calibrated_sensor'], indices['sensor']
    of_lidar = {token for token, row in sensors.items() if row['channel'] == LIDAR}
    name = 'calibrated_sensor'
    others = [row for row in mounts if row['sensor_token'] not in of_lidar]
    yield from refusals(lambda rows: check_transforms(list(rows), name, _named(name, rows)), others)
    lidars = [row for row in mounts if row['sensor_token'] in of_lidar]
    yield from complaints(lambda row: check_lidar_mount(row, f'{name} {row["token"]} ({LIDAR})'), lidars)
    views: dict[tuple, dict] = {}
    for record in tables['sample_data']:
        if record['is_key_frame'] and record['modality'] == 'camera':
            key = record['calibrated_sensor_token'], record['width'], record['height']
            views.setdefault(key, record)
    usable = [record for record in views.values() if record['calibrated_sensor_token'] in indices[name]]
    yield from complaints(lambda record: _check_camera(record, indices), usable)


def _check_camera(record: dict, indices: Indices) -> None:
    """Refuse a camera matrix that does not fit images of the size of a row of ``sample_data``."""
    mount = indices['calibrated_sensor'][record['calibrated_sensor_token']]
    where = f'calibrated_sensor {mount["token"]} ({record["channel"]}, as of sample_data {record["token"]})'
    check_intrinsic(mount, record, where)


def box_faults(tables: Tables, indices: Indices) -> Iterator[str]:
    """Yield a complaint about each annotation of a detection class that cannot be, and each level of visibility."""
    yield from complaints(check_visibility, tables['visibility'])
    names = {row['category_name'] for row in tables['sample_annotation']}
    detected = {name for name in names if name is not None and category_to_detection_name(name)}
    rows = [row for row in tables['sample_annotation'] if row['category_name'] in detected]
    bad = list(refusals(lambda some: check_annotations(list(some)), rows))
    yield from bad
    if not bad:
        yield from _distance_faults(rows, reference_places(tables, indices))


def _distance_faults(rows: list[dict], places: dict[str, np.ndarray]) -> Iterator[str]:
    """Yield a complaint about each object that is far from the vehicle which is said to have seen it."""
    rows = [row for row in rows if row['sample_token'] in places]
    if not rows:
        return
    offsets = np.array([row['translation'] for row in rows]) - [places[row['sample_token']] for row in rows]
    for index in np.flatnonzero(np.linalg.norm(offsets[:, :2], axis=1) > LARGEST_DISTANCE):
        metres = float(np.linalg.norm(offsets[index, :2]))
        yield (
            f'sample {rows[index]["sample_token"]}: translation of {rows[index]["token"]} in sample_annotation.json '
            f'is {metres:.0f} m from the vehicle: boxes are given in the global frame, as ego_pose is'
        )


def message_faults(tables: Tables, indices: Indices, messages: CanBusMessages) -> Iterator[str]:
    """Yield a complaint about each scene whose CAN-bus messages cannot be used, and each message that is broken."""
    by_scene: dict[str, list[dict]] = {}
    for sample in sorted(tables['sample'], key=lambda row: row['timestamp']):
        by_scene.setdefault(sample['scene_token'], []).append(sample)
    for scene in tables['scene']:
        samples = by_scene.get(scene['token'], [])
        try:
            chosen = messages.of_keyframes(
                scene['name'], [sample['timestamp'] for sample in samples], FARTHEST_MESSAGE
            )
        except InputError as error:
            yield str(error)
            continue
        pairs = list(zip(samples, chosen, strict=True))
        yield from complaints(lambda pair: recorded_channels(pair[1], f'sample {pair[0]["token"]}'), pairs)


def _named(table: str, rows: Sequence[dict]) -> Callable[[int], str]:
    """Return a function that names the row of a given number by its token."""
    return lambda index: f'{table} {rows[index]["token"]}'
