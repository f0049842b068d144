"""Checking a folder of nuScenes tables whole: every fault with its record, instead of the first one alone."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from bevformer_plugin.datasets.infos.can_bus import CanBusMessages, find_can_bus
from bevformer_plugin.datasets.infos.categories import describe_unmapped_categories
from bevformer_plugin.datasets.infos.nuscenes_tables import LIDAR
from bevformer_plugin.datasets.infos.splits import check_scene_names, find_splits, first_names
from bevformer_plugin.datasets.infos.table_files import check_tables
from bevformer_plugin.errors import InputError

from .image_files import image_faults
from .table_columns import column_faults, describe_tables, read_tables
from .table_links import Indices, Tables, chain_faults, index_tables, key_frame_faults, token_faults
from .table_values import box_faults, calibration_faults, message_faults, pose_faults, time_faults


@dataclass
class DataReport:
    """What the check of a folder found.

    Attributes:
        folder: of the tables.
        summary: how much the tables hold; '' if they cannot be read.
        faults: messages by the part of the data that they are about, parts in the order in which they were checked.
        notes: what is no fault and good to know.
        unchecked: parts that could not be checked because of faults in earlier ones.
    """

    folder: Path
    summary: str = ''
    faults: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """The number of faults."""
        return sum(map(len, self.faults.values()))

    def text(self) -> str:
        """Return the report as text for a terminal: all faults, part by part, then how many there are."""
        lines = [f'{self.folder}: {self.summary}' if self.summary else str(self.folder)]
        for part, messages in self.faults.items():
            lines.append(f'{part}: {_counted(len(messages))}' if messages else f'{part}: ok')
            lines += [f'  {message}' for message in messages]
        if self.unchecked:
            lines.append(f'not checked before the faults above are mended: {", ".join(self.unchecked)}')
        lines += [f'note: {note}' for note in self.notes]
        parts = ', '.join(f'{part} {len(messages)}' for part, messages in self.faults.items() if messages)
        lines.append(f'{_counted(self.count)} ({parts})' if self.count else 'no faults: tools/create_data.py takes it')
        return '\n'.join(lines)


def check_data(root: str | Path, version: str | None = None, workers: int = 2) -> DataReport:
    """Check the tables of a dataroot and the images that they name.

    Args:
        root: nuScenes dataroot.
        version: name of the folder of tables; None takes the only one that ``root`` holds.
        workers: number of processes that read images.

    Raises:
        FileNotFoundError: there is no such folder.
        InputError: ``root`` holds several versions, or none, and ``version`` does not say which; or ``workers`` is
            less than one.
    """
    if workers < 1:
        raise InputError(f'workers must be at least 1, got {workers}')
    root = Path(root)
    version = version or only_version(root)
    report = DataReport(root / version)
    if not report.folder.is_dir():
        check_tables(root, version)  # says what there is instead
    tables, report.faults['files'] = read_tables(report.folder)
    report.faults['columns'] = list(column_faults(tables))
    parts = _parts(root, version, tables)
    if report.count:
        report.unchecked = [*parts, 'images']
        return report
    report.summary = describe_tables(tables)
    report.notes = _notes(root, version, tables)
    indices = index_tables(tables)
    add_names(tables, indices)
    for name, find in tqdm(parts.items(), desc='checks', unit='part'):
        report.faults[name] = list(find(indices))
    report.faults['images'] = list(_images(root, tables, indices, workers))
    return report


def only_version(root: Path) -> str:
    """Return the name of the only folder of tables in a dataroot.

    Raises:
        FileNotFoundError: there is no such dataroot.
        InputError: it holds several versions, or none.
    """
    if not root.is_dir():
        raise FileNotFoundError(f'no nuScenes folder at {root}: give the folder that holds samples/, maps/ and tables')
    found = versions(root)
    if len(found) != 1:
        raise InputError(
            f'{root} holds the tables of {", ".join(found)}: give one of them with --version'
            if found
            else f'{root} holds no folder of tables, with a sample.json and twelve more: give the folder above it'
        )
    return found[0]


def versions(root: Path) -> list[str]:
    """Return the names of the folders of tables in a dataroot."""
    return sorted(path.parent.name for path in root.glob('*/sample.json'))


def add_names(tables: Tables, indices: Indices) -> None:
    """Add channel and modality to rows of ``sample_data``, and the category to annotations, as the devkit does.

    Where the tokens lead to no row, channel and modality are '', and the category is None.
    """
    for row in tables['sample_data']:
        mount = indices['calibrated_sensor'].get(row['calibrated_sensor_token'], {})
        sensor = indices['sensor'].get(mount.get('sensor_token', ''), {})
        row['channel'], row['modality'] = sensor.get('channel', ''), sensor.get('modality', '')
    for row in tables['sample_annotation']:
        instance = indices['instance'].get(row['instance_token'], {})
        row['category_name'] = indices['category'].get(instance.get('category_token', ''), {}).get('name')


def _parts(root: Path, version: str, tables: Tables) -> dict[str, Callable[[Indices], Iterator[str]]]:
    """Return what finds the faults of each part of the tables, in the order in which they are best mended."""
    return {
        'tokens': lambda indices: token_faults(tables, indices),
        'chains': lambda indices: chain_faults(tables, indices),
        'key frames': lambda _: key_frame_faults(tables['sample_data'], tables['sample']),
        'timestamps': lambda indices: time_faults(tables, indices),
        'poses': lambda indices: pose_faults(tables, indices),
        'calibration': lambda indices: calibration_faults(tables, indices),
        'boxes': lambda indices: box_faults(tables, indices),
        'CAN bus': lambda indices: message_faults(tables, indices, CanBusMessages(find_can_bus(root))),
        'scenes': lambda _: _scene_faults(root, version, tables),
    }


def _images(root: Path, tables: Tables, indices: Indices, workers: int) -> Iterator[str]:
    """Yield complaints about the images of all key frames."""
    scenes = {
        sample['token']: indices['scene'].get(sample['scene_token'], {}).get('name', '') for sample in tables['sample']
    }
    records = [row for row in tables['sample_data'] if row['is_key_frame'] and row['modality'] == 'camera']
    return image_faults(root, records, scenes, workers)


def _scene_faults(root: Path, version: str, tables: Tables) -> Iterator[str]:
    """Yield complaints about cameras, maps, names of scenes and of categories, each of which stops everything."""
    if not any(row['modality'] == 'camera' for row in tables['sensor']):
        yield 'sensor.json lists no camera: the modality of a camera is camera'

    def check_splits() -> None:
        where = f'{root}/{version}'
        check_scene_names([row['name'] for row in tables['scene']], find_splits(root, version), where)

    categorised = [row for row in tables['sample_annotation'] if row['category_name'] is not None]
    for check in (
        lambda: check_tables(root, version),
        check_splits,
        lambda: describe_unmapped_categories(categorised),
    ):
        try:
            check()
        except (InputError, OSError) as error:
            yield str(error)


def _notes(root: Path, version: str, tables: Tables) -> list[str]:
    """Write what is no fault and still worth a line."""
    notes = []
    counts = Counter(row['channel'] for row in tables['sensor'])
    if LIDAR not in counts:
        notes.append(
            f'no {LIDAR} in sensor.json: boxes are given in a frame at the vehicle, which docs/data.md describes'
        )
    try:
        known = find_splits(root, version).split_of()
    except (InputError, OSError):
        return notes  # a fault, and reported as one
    without = [row['name'] for row in tables['scene'] if row['name'] not in known]
    if 0 < len(without) < len(tables['scene']):
        notes.append(f'{len(without)} scenes belong to no split and get no infos: {first_names(without)}')
    return notes


def _counted(count: int) -> str:
    return f'{count} fault' if count == 1 else f'{count} faults'
