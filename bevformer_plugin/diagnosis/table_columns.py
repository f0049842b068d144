"""Reading the tables of a folder as they are, and finding rows that lack a column or hold another kind of value."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from bevformer_plugin.nuscenes_format import TABLES

TEXT, WHOLE, NUMBER, LIST, SWITCH = (str,), (int,), (int, float), (list,), (bool,)
# The columns that the devkit or this package read, with the types that their values may have.
COLUMNS: dict[str, dict[str, tuple[type, ...]]] = {
    'category': {'token': TEXT, 'name': TEXT},
    'attribute': {'token': TEXT, 'name': TEXT},
    'visibility': {'token': TEXT, 'level': TEXT},
    'instance': {
        'token': TEXT,
        'category_token': TEXT,
        'nbr_annotations': WHOLE,
        'first_annotation_token': TEXT,
        'last_annotation_token': TEXT,
    },
    'sensor': {'token': TEXT, 'channel': TEXT, 'modality': TEXT},
    'calibrated_sensor': {
        'token': TEXT,
        'sensor_token': TEXT,
        'translation': LIST,
        'rotation': LIST,
        'camera_intrinsic': LIST,
    },
    'ego_pose': {'token': TEXT, 'timestamp': NUMBER, 'translation': LIST, 'rotation': LIST},
    'log': {'token': TEXT},
    'scene': {
        'token': TEXT,
        'name': TEXT,
        'log_token': TEXT,
        'nbr_samples': WHOLE,
        'first_sample_token': TEXT,
        'last_sample_token': TEXT,
    },
    'sample': {'token': TEXT, 'timestamp': NUMBER, 'scene_token': TEXT, 'prev': TEXT, 'next': TEXT},
    'sample_data': {
        'token': TEXT,
        'sample_token': TEXT,
        'ego_pose_token': TEXT,
        'calibrated_sensor_token': TEXT,
        'timestamp': NUMBER,
        'is_key_frame': SWITCH,
        'filename': TEXT,
        'width': (int, type(None)),
        'height': (int, type(None)),
        'prev': TEXT,
        'next': TEXT,
    },
    'sample_annotation': {
        'token': TEXT,
        'sample_token': TEXT,
        'instance_token': TEXT,
        'attribute_tokens': LIST,
        'translation': LIST,
        'size': LIST,
        'rotation': LIST,
        'num_lidar_pts': WHOLE,
        'num_radar_pts': WHOLE,
        'prev': TEXT,
        'next': TEXT,
    },
    'map': {'token': TEXT, 'filename': TEXT, 'log_tokens': LIST},
}
NAMES = {
    str: 'text',
    int: 'a whole number',
    float: 'a number',
    list: 'a list',
    bool: 'true or false',
    type(None): 'null',
}


def read_tables(folder: Path) -> tuple[dict[str, list[dict]], list[str]]:
    """Read the tables of a folder.

    Returns:
        Rows by table, without the tables that cannot be read, and a complaint about each of those.
    """
    tables: dict[str, list[dict]] = {}
    faults: list[str] = []
    for name in tqdm(TABLES, desc='tables', unit='table'):
        path = folder / f'{name}.json'
        try:
            rows = json.loads(path.read_text(encoding='utf-8'))
        except FileNotFoundError:
            faults.append(f'{name}.json: there is no such table in {folder}; an empty one is written as []')
            continue
        except (OSError, ValueError) as error:
            faults.append(f'{name}.json: cannot be read as JSON ({error}): write or unpack it again')
            continue
        if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
            tables[name] = rows
        else:
            faults.append(f'{name}.json: is no list of objects, one for each row')
    return tables, faults


def column_faults(tables: dict[str, list[dict]]) -> Iterator[str]:
    """Yield a complaint about each row that lacks a column, or has a value of another type in it."""
    for name, columns in COLUMNS.items():
        rows = tables.get(name, [])
        for column, allowed in columns.items():
            if {type(row.get(column, Ellipsis)) for row in rows} <= set(allowed):
                continue
            for number, row in enumerate(rows):
                if column not in row:
                    yield f'{_row(name, number, row)}: {column} is missing'
                elif type(row[column]) not in allowed:
                    wanted = ' or '.join(NAMES[kind] for kind in allowed)
                    yield f'{_row(name, number, row)}: {column} is {json.dumps(row[column])[:80]}, not {wanted}'
        yield from _token_faults(name, rows)


def _token_faults(name: str, rows: list[dict]) -> Iterator[str]:
    """Yield a complaint about each row whose token is empty, and each list of tokens that holds other things."""
    for number, row in enumerate(rows):
        if row.get('token') == '':
            yield f'{name}.json, row {number}: token is empty'
    for column in ('attribute_tokens', 'log_tokens'):
        for number, row in enumerate(rows):
            tokens = row.get(column)
            if isinstance(tokens, list) and not all(isinstance(token, str) for token in tokens):
                yield f'{_row(name, number, row)}: {column} is {json.dumps(tokens)[:80]}, not a list of tokens'


def _row(name: str, number: int, row: dict) -> str:
    """Name a row by its token, or by its number from 0 if it has none."""
    token = row.get('token')
    return f'{name} {token}' if isinstance(token, str) and token else f'{name}.json, row {number}'


def describe_tables(tables: dict[str, list[dict]]) -> str:
    """Count the rows that tell how large a data set is, in one line."""
    channels = Counter(row['modality'] for row in tables['sensor'])
    sensors = ', '.join(f'{count} {modality}' for modality, count in channels.items())
    frames = sum(row['is_key_frame'] for row in tables['sample_data'])
    return (
        f'{len(tables["scene"])} scenes, {len(tables["sample"])} samples, {frames} key frames of '
        f'{len(tables["sensor"])} sensors ({sensors}), {len(tables["instance"])} objects in '
        f'{len(tables["sample_annotation"])} annotations'
    )
