"""What rows of tables name: tokens that no row has, and chains whose links do not fit each other."""

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterator

from bevformer_plugin.datasets.infos.row_checks import check_all_reached, check_scene_of, check_successor
from bevformer_plugin.datasets.infos.table_files import repeated_tokens, second_key_frames

from .every_fault import complaints

Tables = dict[str, list[dict]]
Indices = dict[str, dict[str, dict]]  # rows by table and token
# Table, column with the token of a row, the table of that row; those of OPTIONAL may be ''.
REFERENCES = (
    ('instance', 'category_token', 'category'),
    ('instance', 'first_annotation_token', 'sample_annotation'),
    ('instance', 'last_annotation_token', 'sample_annotation'),
    ('calibrated_sensor', 'sensor_token', 'sensor'),
    ('scene', 'log_token', 'log'),
    ('scene', 'first_sample_token', 'sample'),
    ('scene', 'last_sample_token', 'sample'),
    ('sample', 'scene_token', 'scene'),
    ('sample', 'prev', 'sample'),
    ('sample', 'next', 'sample'),
    ('sample_data', 'sample_token', 'sample'),
    ('sample_data', 'ego_pose_token', 'ego_pose'),
    ('sample_data', 'calibrated_sensor_token', 'calibrated_sensor'),
    ('sample_data', 'prev', 'sample_data'),
    ('sample_data', 'next', 'sample_data'),
    ('sample_annotation', 'sample_token', 'sample'),
    ('sample_annotation', 'instance_token', 'instance'),
    ('sample_annotation', 'visibility_token', 'visibility'),
    ('sample_annotation', 'prev', 'sample_annotation'),
    ('sample_annotation', 'next', 'sample_annotation'),
)
OPTIONAL = ('prev', 'next', 'visibility_token')


def index_tables(tables: Tables) -> Indices:
    """Return the rows of each table by their token; of several rows with one token the first."""
    return {name: {row['token']: row for row in reversed(rows)} for name, rows in tables.items()}


def token_faults(tables: Tables, indices: Indices) -> Iterator[str]:
    """Yield a complaint about each token that several rows have, and each that names no row."""
    for name, rows in tables.items():
        for token in repeated_tokens(rows):
            yield f'token {token} is twice in {name}.json: write each row once, with a token of its own'
    for name, column, target in REFERENCES:
        known = indices[target]
        for row in tables[name]:
            token = row.get(column, '')
            if token in known or (not token and column in OPTIONAL):
                continue
            yield f'{name} {row["token"]}: {column} {token!r} is the token of no row of {target}.json'
    for row in tables['sample_annotation']:
        for token in row['attribute_tokens']:
            if token not in indices['attribute']:
                yield f'sample_annotation {row["token"]}: attribute {token!r} is the token of no row of attribute.json'
    with_map = {token for row in tables['map'] for token in row['log_tokens']}
    for row in tables['log']:
        if row['token'] not in with_map:
            yield f'log {row["token"]}: no row of map.json has it in its log_tokens, and the devkit looks for one'


def chain_faults(tables: Tables, indices: Indices) -> Iterator[str]:
    """Yield a complaint about each link of a chain that does not fit, and each chain that leaves rows out."""
    samples, annotations = indices['sample'], indices['sample_annotation']
    yield from _link_faults('sample', indices['sample'], lambda row: row['scene_token'], 'scene')
    yield from _scene_faults(tables, samples)
    yield from _link_faults('sample_data', indices['sample_data'], _stream_of(indices), 'scene and sensor')
    yield from _backward_faults('sample_data', indices['sample_data'], lambda row: row['timestamp'])
    yield from _link_faults('sample_annotation', annotations, lambda row: row['instance_token'], 'object')
    yield from _backward_faults(
        'sample_annotation',
        {token: row for token, row in annotations.items() if row['sample_token'] in samples},
        lambda row: samples[row['sample_token']]['timestamp'],
    )
    yield from _instance_faults(tables, annotations)


def _stream_of(indices: Indices) -> Callable[[dict], tuple]:
    """Return a function that names scene and channel of a row of ``sample_data``; None for what is not known."""

    def stream(row: dict) -> tuple:
        sample = indices['sample'].get(row['sample_token'], {})
        mount = indices['calibrated_sensor'].get(row['calibrated_sensor_token'], {})
        return sample.get('scene_token'), mount.get('sensor_token')

    return stream


def _link_faults(name: str, rows: dict[str, dict], owner: Callable[[dict], object], whose: str) -> Iterator[str]:
    """Yield a complaint about links that are not answered by the row they lead to, or that leave the owner's rows.

    Args:
        name: of the table.
        rows: its rows by token.
        owner: tells what the chain of a row is of.
        whose: what an owner is called.
    """
    for row in rows.values():
        for link, back in (('next', 'prev'), ('prev', 'next')):
            other = rows.get(row[link])
            if other is None:
                continue
            if other[back] != row['token']:
                yield (
                    f'{name} {row["token"]}: {link} is {row[link]}, but {back} of that row is '
                    f'{other[back] or "empty"}: the two columns say the same order forward and backward'
                )
            if link == 'next' and name != 'sample' and owner(other) != owner(row):
                yield f'{name} {row["token"]}: next is {row["next"]}, which is of another {whose}'


def _backward_faults(name: str, rows: dict[str, dict], time: Callable[[dict], float]) -> Iterator[str]:
    """Yield a complaint about links that lead to a row of an earlier or the same time."""
    for row in rows.values():
        other = rows.get(row['next'])
        if other is not None and time(other) <= time(row):
            yield f'{name} {row["token"]}: next is {row["next"]}, which is not later ({time(other)}, {time(row)})'


def _scene_faults(tables: Tables, samples: dict[str, dict]) -> Iterator[str]:
    """Yield a complaint about scenes whose chain of samples is not what ``scene.json`` and its samples say."""
    totals = Counter(row['scene_token'] for row in tables['sample'])
    for scene in tables['scene']:
        chain = _walk(samples, scene['first_sample_token'])
        pairs = list(itertools.pairwise(chain))
        yield from complaints(functools.partial(check_scene_of, scene=scene), chain)
        yield from complaints(lambda pair, scene=scene: check_successor(*pair, scene), pairs)
        yield from complaints(
            lambda total, scene=scene, chain=chain: check_all_reached(scene, len(chain), total),
            [totals[scene['token']]],
        )
        where = f'scene {scene["token"]} ({scene["name"]})'
        if chain and chain[0]['prev']:
            yield f'{where}: prev of its first sample is {chain[0]["prev"]}, not empty'
        yield from _ends(where, scene, chain, 'nbr_samples', 'last_sample_token')


def _instance_faults(tables: Tables, annotations: dict[str, dict]) -> Iterator[str]:
    """Yield a complaint about objects whose chain of annotations is not what ``instance.json`` says."""
    totals = Counter(row['instance_token'] for row in tables['sample_annotation'])
    seen: set[tuple[str, str]] = set()
    for row in tables['sample_annotation']:
        key = row['instance_token'], row['sample_token']
        if key in seen:
            yield f'sample_annotation {row["token"]}: its object {key[0]} has another annotation in sample {key[1]}'
        seen.add(key)
    for instance in tables['instance']:
        where = f'instance {instance["token"]}'
        chain = _walk(annotations, instance['first_annotation_token'])
        if len(chain) < totals[instance['token']]:
            yield (
                f'{where}: {totals[instance["token"]]} annotations name it, but its chain from '
                f'first_annotation_token along next reaches {len(chain)}'
            )
        yield from _ends(where, instance, chain, 'nbr_annotations', 'last_annotation_token')


def _ends(where: str, row: dict, chain: list[dict], count: str, last: str) -> Iterator[str]:
    """Yield a complaint about a chain that has another length or another end than its row says."""
    if chain and row[count] != len(chain):
        yield f'{where}: {count} is {row[count]}, but its chain has {len(chain)} rows'
    if chain and row[last] != chain[-1]['token']:
        yield f'{where}: {last} is {row[last]}, but its chain ends at {chain[-1]["token"]}'


def _walk(rows: dict[str, dict], token: str) -> list[dict]:
    """Return the rows of a chain from a token on; a circle ends where it would begin again."""
    chain: dict[str, dict] = {}
    while token in rows and token not in chain:
        chain[token] = rows[token]
        token = rows[token]['next']
    return list(chain.values())


def key_frame_faults(records: list[dict], samples: list[dict]) -> Iterator[str]:
    """Yield a complaint about each sample that lacks a key frame of a sensor, or has two of one.

    Args:
        records: rows of ``sample_data``, each with ``channel`` and ``modality`` of its sensor.
        samples: rows of ``sample``.
    """
    yield from second_key_frames(records)
    needed = {row['channel'] for row in records if row['is_key_frame'] and row['modality'] in ('camera', 'lidar')}
    present = {(row['sample_token'], row['channel']) for row in records if row['is_key_frame']}
    for sample in samples:
        lacking = sorted(channel for channel in needed if (sample['token'], channel) not in present)
        if lacking:
            yield (
                f'sample {sample["token"]}: no key frame of {", ".join(lacking)} in sample_data.json, though other '
                'samples have one'
            )
