"""Opening the nuScenes tables of a dataroot with the devkit, after checking what the devkit only assumes."""

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from nuscenes import NuScenes

from bevformer_plugin.errors import InputError
from bevformer_plugin.nuscenes_format import OFFICIAL_SPLITS, TABLES

EMPTY_TABLE_BYTES = 64  # a table of one row is larger


def check_tables(root: str | Path, version: str) -> Path:
    """Check in an instant that all tables of a version exist, and the maps that they name.

    Args:
        root: nuScenes dataroot.
        version: name of the folder of tables.

    Returns:
        The folder of the tables.

    Raises:
        FileNotFoundError: the root, the version's folder, a table or a map is missing.
        InputError: an unknown version, or a map table that cannot be read.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(
            f'no nuScenes folder at {root}: give the folder that holds samples/, maps/ and {version}/'
        )
    folder = root / version
    if not folder.is_dir():
        others = sorted(path.parent.name for path in root.glob('*/sample.json'))
        remedy = f'give one that it holds: {", ".join(others)}' if others else 'it holds no tables at all'
        if version not in OFFICIAL_SPLITS:
            raise InputError(
                f'unknown nuScenes version {version!r}: it is one of {", ".join(OFFICIAL_SPLITS)}, or the folder of '
                f'your own tables in {root}; {remedy}'
            )
        raise FileNotFoundError(f'{root} holds no {version}: {remedy}')
    missing = [f'{name}.json' for name in TABLES if not (folder / f'{name}.json').is_file()]
    if missing:
        raise FileNotFoundError(f'{folder} lacks {", ".join(missing)}: unpack the metadata archive of {version} again')
    try:
        maps = [row['filename'] for row in json.loads((folder / 'map.json').read_text()) if row['log_tokens'] != []]
        missing = [name for name in maps if not (root / name).is_file()]
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(folder, error) from error
    if not maps:
        raise InputError(f'{folder}/map.json names no map of any log: the devkit needs one, any PNG will do')
    if missing:
        raise FileNotFoundError(
            f'{root} lacks {", ".join(missing)}, which {version}/map.json names: it comes with the metadata archive '
            f'of {version}'
        )
    return folder


def open_tables(root: str | Path, version: str) -> NuScenes:
    """Open a dataroot with the devkit.

    The tables of the last call stay in memory, and are read again when one of their files has changed.

    Raises:
        FileNotFoundError: the root, the version's folder, a table or a map is missing.
        InputError: an unknown version, tables that the devkit cannot read, a token twice in a table, or two key
            frames of one sample and channel.
    """
    folder = check_tables(root, version)
    states = [(folder / f'{name}.json').stat() for name in TABLES]
    return _open(str(root), version, tuple((state.st_mtime_ns, state.st_size) for state in states))


def has_annotations(root: str | Path, version: str) -> bool:
    """Return whether the tables of a version hold any annotation; those of nuScenes' test split hold none."""
    path = Path(root, version, 'sample_annotation.json')
    return path.stat().st_size > EMPTY_TABLE_BYTES or ''.join(path.read_text().split()) != '[]'


@contextlib.contextmanager
def refuse_tables_that_do_not_fit(tables: NuScenes, what: str) -> Iterator[None]:
    """Turn an error about a missing row or column, raised in the block, into one that names the tables.

    Args:
        tables: the tables that the block reads.
        what: the part of them that it reads, such as a scene's name.

    Raises:
        InputError: the block looked up a row or column that the tables lack, or computed with one of another shape.
    """
    try:
        yield
    except InputError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(
            f'the tables of {what} in {tables.dataroot}/{tables.version} do not fit together '
            f'({type(error).__name__}: {error}): a column, or a row that another names, is missing or broken'
        ) from error


@lru_cache(maxsize=1)
def _open(root: str, version: str, states: tuple) -> NuScenes:
    try:
        tables = NuScenes(version, root, verbose=False)
    except (KeyError, TypeError, AttributeError, IndexError, AssertionError, ValueError) as error:
        raise _unreadable(Path(root, version), error) from error
    _refuse_repeated_tokens(tables)
    _refuse_second_key_frames(tables)
    return tables


def _refuse_repeated_tokens(tables: NuScenes) -> None:
    """Refuse tables in which a token occurs twice: the devkit would count its annotation twice and find one row.

    Raises:
        InputError: naming token and table.
    """
    for name in TABLES:
        repeated = repeated_tokens(getattr(tables, name))
        if repeated:
            raise InputError(
                f'token {repeated[0]} is twice in {name}.json{_and_more(repeated)}: write each row once, with a token '
                'of its own'
            )


def repeated_tokens(rows: list[dict]) -> list[str]:
    """Return the tokens that several rows of a table have."""
    tokens = [row['token'] for row in rows]
    return [token for token, count in Counter(tokens).items() if count > 1] if len(set(tokens)) < len(tokens) else []


def _refuse_second_key_frames(tables: NuScenes) -> None:
    """Refuse two key frames of one sample and channel: the devkit would silently take the last one.

    Raises:
        InputError: naming sample, channel and the tokens of both.
    """
    for complaint in second_key_frames(tables.sample_data):
        raise InputError(complaint)


def second_key_frames(records: Iterable[dict]) -> Iterator[str]:
    """Yield a complaint about each key frame whose sample has another one of its channel before it.

    Args:
        records: rows of ``sample_data``, each with its ``channel``.
    """
    first_tokens: dict[tuple[str, str], str] = {}
    for row in records:
        if not row['is_key_frame']:
            continue
        first = first_tokens.setdefault((row['sample_token'], row['channel']), row['token'])
        if first != row['token']:
            yield (
                f'sample {row["sample_token"]} has two key frames of {row["channel"]} in sample_data.json, {first} '
                f'and {row["token"]}: is_key_frame is true for one reading of each sensor only'
            )


def _and_more(named: list) -> str:
    """Say how many there are besides the first of a list, '' if none."""
    return f' (and {len(named) - 1} more)' if len(named) > 1 else ''


def _unreadable(folder: Path, error: Exception) -> InputError:
    """Make the error to raise for tables that cannot be read."""
    return InputError(
        f'the tables in {folder} cannot be read ({type(error).__name__}: {error}): unpack the metadata archive of '
        f'{folder.name} again'
    )
