"""Whether a dataroot is whole: its tables, its info files and the files they name, and whether all belong together."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bevformer_plugin.datasets.infos.can_bus import CanBusMessages, find_can_bus
from bevformer_plugin.datasets.infos.formats import infos_of, read_info_file
from bevformer_plugin.datasets.infos.nuscenes_tables import CATEGORIES, LIDAR, EntryBuilder
from bevformer_plugin.datasets.infos.table_files import check_tables, open_tables, refuse_tables_that_do_not_fit
from bevformer_plugin.datasets.infos.true_boxes import box_table
from bevformer_plugin.errors import InputError
from bevformer_plugin.nuscenes_format import TABLES

from .data_check import versions
from .page import Line, note, ok, wrong

KINDS = {'ours': "this plugin's", 'published': "the published BEVFormer's", 'stock': "mmdetection3d's"}
COMPARED = 5  # entries of an info file that is older than the tables
CLOSE = 1e-3  # metres, pixels and so on, by which an entry may differ from the tables


@dataclass(frozen=True)
class InfoFile:
    """An info file that could be read.

    Attributes:
        path: of the file.
        kind: 'ours' or 'published'.
        infos: its content in this plugin's format.
    """

    path: Path
    kind: str
    infos: dict


def examine_dataroot(root: Path, version: str | None) -> tuple[list[Line], list[InfoFile]]:
    """Examine tables, info files and the files that they name.

    Args:
        root: nuScenes dataroot.
        version: name of the folder of tables; None takes all that ``root`` holds.

    Returns:
        The lines of the page, and the info files that could be read.
    """
    names = [version] if version else versions(root)
    if not root.is_dir() or not names:
        missing = f'no folder at {root}' if not root.is_dir() else f'{root} holds no folder with a sample.json'
        return [wrong('tables', f'{missing}: give the folder that holds samples/, maps/ and v1.0-trainval/')], []
    lines = [_tables(root, name) for name in names]
    files: list[InfoFile] = []
    for path in sorted(path for path in root.glob('*infos*.pkl') if 'dbinfos' not in path.name):
        found, file = _info_file(root, path, version)
        lines += found
        files += [file] if file else []
    lines += _together(files)
    for file in files:
        lines += _details(root, file)
    return lines, files


def _tables(root: Path, version: str) -> Line:
    try:
        check_tables(root, version)
    except (InputError, OSError) as error:
        return wrong('tables', error)
    return ok('tables', f'{version}: all {len(TABLES)} and the maps; tools/check_data.py {root} looks into them')


def _info_file(root: Path, path: Path, version: str | None) -> tuple[list[Line], InfoFile | None]:
    """Read an info file; one of mmdetection3d is named and not read, since it needs the tables to be understood."""
    try:
        kind, content = read_info_file(path)
        if kind == 'stock':
            remedy = f'tools/create_data.py convert {path} --root {root} --out FILE makes one for training'
            return [note('infos', f"{path.name}: mmdetection3d's, without scenes and poses: {remedy}")], None
        infos = infos_of((kind, content), path, root, version)
    except (InputError, OSError) as error:
        return [wrong('infos', error)], None
    meta, entries = infos['metainfo'], infos['data_list']
    scenes = len({entry['scene_token'] for entry in entries})
    line = ok(
        'infos',
        f'{path.name}: {KINDS[kind]} format, {meta["version"]} {meta["split"] or "of an unknown split"}, {scenes} '
        f'scenes, {len(entries)} samples, CAN-bus rule {meta["can_bus"]}, boxes in the frame of the {meta["frame"]}',
    )
    return [line], InfoFile(path, kind, infos)


def _together(files: list[InfoFile]) -> list[Line]:
    """Compare the info files of a dataroot with each other, since one trains on some and tests on others."""
    lines = []
    for key, what in (('version', 'versions'), ('can_bus', 'CAN-bus rules'), ('frame', 'frames of boxes')):
        values = {file.path.name: file.infos['metainfo'][key] for file in files}
        if len(set(values.values())) > 1:
            listed = ', '.join(f'{name} {value}' for name, value in values.items())
            lines.append(
                wrong('infos', f'are of several {what} ({listed}): make all of them in one call of create_data.py')
            )
    return lines


def _details(root: Path, file: InfoFile) -> list[Line]:
    """Examine classes, boxes, files, CAN bus and age of an info file."""
    name, meta, entries = file.path.name, file.infos['metainfo'], file.infos['data_list']
    lines = [ok('boxes', box_table(name, entries))]
    if not any(entry['instances'] for entry in entries):
        lines = [note('boxes', f'{name}: none, as of a test split, which cannot be scored')]
    elif not any(i['num_lidar_pts'] + i['num_radar_pts'] for entry in entries for i in entry['instances']):
        lines = [note('boxes', f"{name}: none has LiDAR or radar points: set true_boxes='visibility' or 'all'")]
    if meta['categories'] != CATEGORIES:
        lines.append(note('classes', f'{name}: {", ".join(meta["categories"])}'))
    lines.append(_files(root, name, entries))
    if meta['can_bus'] == 'none' and find_can_bus(root):
        lines.append(
            note('CAN bus', f'{name} is made without it, though {root / "can_bus"} is there: make the infos again')
        )
    if file.kind == 'ours':
        lines += _age(root, file)
    return lines


def _files(root: Path, name: str, entries: list[dict]) -> Line:
    """Look for the images of all entries."""
    absent = Counter()
    first = ''
    for entry in entries:
        for camera, image in entry['images'].items():
            path = root / image['img_path']
            if not (path.is_file() and path.stat().st_size):
                absent[camera] += 1
                first = first or image['img_path']
    total = sum(len(entry['images']) for entry in entries)
    if absent:
        cameras = ', '.join(f'{camera} {count}' for camera, count in absent.items())
        return wrong(
            'images',
            f'{name}: {absent.total()} of {total} are missing or empty ({cameras}), the first is {first}: complete '
            f'{root}, or make the infos again, which leaves these keyframes out',
        )
    return ok('images', f'{name}: all {total} are there')


def _age(root: Path, file: InfoFile) -> list[Line]:
    """Compare an info file that is older than a table with the tables, entry by entry for some of them."""
    name, version = file.path.name, file.infos['metainfo']['version']
    folder = root / version
    written = file.path.stat().st_mtime
    newer = [
        table
        for table in TABLES
        if (folder / f'{table}.json').is_file() and (folder / f'{table}.json').stat().st_mtime > written
    ]
    if not newer:
        return []
    remedy = f'python tools/create_data.py nuscenes --root {root} --version {version} --overwrite'
    try:
        differing = _differing(root, file)
    except (InputError, OSError) as error:
        return [wrong('age', f'{name} is older than {newer[0]}.json, which cannot be compared with it: {error}')]
    if differing:
        return [
            wrong('age', f'{name} is older than {newer[0]}.json and differs from the tables in {differing}: {remedy}')
        ]
    return [ok('age', f'{name} is older than {newer[0]}.json, and agrees with the tables in {COMPARED} keyframes')]


def _differing(root: Path, file: InfoFile) -> str:
    """Return the first sample and field in which some entries differ from the tables, '' if they agree."""
    version, entries = file.infos['metainfo']['version'], file.infos['data_list']
    cameras = list(entries[0]['images'])
    builder = EntryBuilder(open_tables(root, version), CanBusMessages(None), cameras)
    with refuse_tables_that_do_not_fit(builder.tables, file.path.name):
        known = {sample['token']: sample for sample in builder.tables.sample}
        for entry in spread(entries, COMPARED):
            where = f'sample {entry["token"]}'
            if entry['token'] not in known:
                return f'{where}, which is in no table'
            sample = known[entry['token']]
            field = _first_difference(
                {**builder.keyframe(sample, 0, None), 'instances': builder.instances(sample)}, entry
            )
            if field:
                return f'{field} of {where}'
    return ''


def _first_difference(wanted: dict, entry: dict) -> str:
    """Return the first field in which an entry differs from what the tables give, '' if there is none."""
    pairs = {
        'ego2global': (wanted['ego2global'], entry['ego2global']),
        'lidar2ego': (wanted['lidar_points']['lidar2ego'], entry['lidar_points']['lidar2ego']),
        'boxes': ([item['bbox_3d'] for item in wanted['instances']], [item['bbox_3d'] for item in entry['instances']]),
    }
    for camera, image in entry['images'].items():
        for field in ('cam2img', 'lidar2cam'):
            pairs[f'{field} of {camera}'] = wanted['images'][camera][field], image[field]
    for field, (given, found) in pairs.items():
        old, new = np.array(found, dtype=np.float64), np.array(given, dtype=np.float64)
        if old.shape != new.shape or not np.allclose(old, new, rtol=0, atol=CLOSE):
            return field
    return ''


def spread(entries: list[dict], count: int) -> list[dict]:
    """Choose entries that are spread evenly over a list."""
    chosen = np.unique(np.linspace(0, len(entries) - 1, min(count, len(entries))).round().astype(int))
    return [entries[index] for index in chosen]


def entries_of_tables(root: Path, version: str) -> tuple[list[Line], list[dict]]:
    """Build entries from the tables of a dataroot that has no info files, and say which images are there.

    This takes a minute and some gigabytes for v1.0-trainval.

    Returns:
        Lines of the page, and the entries of keyframes with all their images.
    """
    try:
        tables, messages = open_tables(root, version), CanBusMessages(find_can_bus(root))
        with refuse_tables_that_do_not_fit(tables, 'all scenes'):
            builder = EntryBuilder(tables, messages)
            built = [builder.scene(scene) for scene in tables.scene]
    except (InputError, OSError) as error:
        return [wrong('keyframes', f'{version}: {error}')], []
    keyframes = sum(count.keyframes for _, count in built)
    entries = [entry for scene, _ in built for entry in scene]
    lacking = keyframes - len(entries)
    found = f'{version}: {len(entries)} of {keyframes} have all their images'
    make = f'make infos with python tools/create_data.py nuscenes --root {root} --version {version}'
    lines = [_availability(found, lacking, bool(entries), root), note('infos', f'there are none yet: {make}')]
    if builder.has_lidar and not any(_has_scan(root, entry) for entry in entries):
        lines.append(note('LiDAR', f'no file of {LIDAR} is there: training needs none'))
    return lines, entries


def _availability(found: str, lacking: int, any_left: bool, root: Path) -> Line:
    if not any_left:
        return wrong('keyframes', f'{found}: unpack samples/ into {root}')
    return note('keyframes', f'{found}: the others get no infos') if lacking else ok('keyframes', found)


def _has_scan(root: Path, entry: dict) -> bool:
    return Path(root, entry['lidar_points']['lidar_path']).is_file()
