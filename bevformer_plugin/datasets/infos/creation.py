"""Making the info files of a dataroot: scenes in parallel, a file for each split, a table of what was left out."""

import concurrent.futures
import logging
import multiprocessing
import pickle
import signal
from collections.abc import Iterable, Iterator
from functools import reduce
from operator import add
from pathlib import Path

from mmengine.logging import print_log
from tqdm import tqdm

from bevformer_plugin.atomic_write import atomic_write, refuse_unwritable, refuse_unwritable_folder
from bevformer_plugin.errors import InputError

from .can_bus import FARTHEST_MESSAGE, CanBusMessages, find_can_bus
from .categories import describe_unmapped_categories
from .entry_checks import check_entries
from .formats import infos_file, load_infos, numbered, our_metainfo
from .nuscenes_tables import CATEGORIES, LIDAR, EntryBuilder, SceneCount
from .splits import Splits, check_scene_names, find_splits, first_names
from .table_files import check_tables, open_tables, refuse_tables_that_do_not_fit
from .true_boxes import box_table

# Set in worker processes only, which are forked so that the tables are in memory once.
_builder_of_worker: EntryBuilder | None = None


def create_nuscenes_infos(
    root: str | Path,
    version: str,
    out_dir: str | Path | None = None,
    can_bus_dir: str | Path | None = None,
    workers: int = 2,
    overwrite: bool = False,
    can_bus_message: str = 'nearest',
    cameras: list[str] | None = None,
    splits_file: str | Path | None = None,
) -> dict[str, Path]:
    """Write ``nuscenes_infos_temporal_{train,val,test}.pkl`` for the splits of a version and print what they hold.

    Keyframes that lack a camera image are left out and counted. LiDAR files and CAN bus are optional: without
    recorded messages the nine recorded channels are 0, and the pose channels always come from the ``ego_pose`` table.
    A split none of whose keyframes has images gets no file. For tables without LIDAR_TOP, boxes are given in a frame
    at the vehicle's origin, see :class:`EntryBuilder`.

    Args:
        root: nuScenes dataroot.
        version: 'v1.0-trainval', 'v1.0-mini', 'v1.0-test', or the name of a folder of your own tables.
        out_dir: folder for the files, by default ``root``.
        can_bus_dir: the folder ``can_bus`` or its parent, by default ``root/can_bus`` if it exists.
        workers: number of processes; the result does not depend on it.
        overwrite: replace existing files.
        can_bus_message: which recorded message belongs to a keyframe, see :class:`CanBusMessages`; the weights
            published by BEVFormer's authors need 'official_v1'.
        cameras: channels to take, such as ['CAM_FRONT']; None takes all cameras of the tables.
        splits_file: JSON object, split name -> scene names, for your own scenes, see :func:`find_splits`; by default
            ``root/version/splits.json`` if it exists, else nuScenes' own splits.

    Returns:
        The files written, by split name.

    Raises:
        FileNotFoundError: a folder, table or map is missing, no keyframe has all its images, or no image of a camera
            is there.
        FileExistsError: a file exists already and ``overwrite`` is False.
        OSError: ``out_dir`` cannot be written to.
        InputError: the version, a camera or ``can_bus_message`` is unknown, splits cannot be used or name no scene of
            the tables, ``workers`` is less than one, tables or messages hold broken numbers, no annotation is of a
            detection class, messages are of another time than their scene, or images are of another size than their
            calibration.
    """
    if workers < 1:
        raise InputError(f'workers must be at least 1, got {workers}')
    messages = CanBusMessages(find_can_bus(root, can_bus_dir), can_bus_message)
    check_tables(root, version)
    splits = find_splits(root, version, splits_file)
    files = {split: infos_file(out_dir or root, role) for split, role in splits.roles.items()}
    if not overwrite:
        _refuse_existing(files.values())
    refuse_unwritable_folder(out_dir or root)
    tables, split_of = open_tables(root, version), splits.split_of()
    with refuse_tables_that_do_not_fit(tables, 'all scenes'):
        builder = EntryBuilder(tables, messages, cameras)
        wanted = _scenes_of_splits(builder, splits, split_of)
        _log_inputs(builder, messages, splits)
        _refuse_absent_cameras(builder, wanted)
    results = list(tqdm(_build_scenes(builder, wanted, workers), total=len(wanted), desc='infos', unit='scene'))

    _log_unused_messages(messages, [count for _, count in results])
    written, lines = {}, [_TABLE_HEAD]
    for split, path in files.items():
        parts = [(entries, count) for entries, count in results if split_of[count.name] == split]
        data_list = [entry for entries, _ in parts for entry in entries]
        lines += _table_rows(split, [count for _, count in parts])
        if not data_list:
            lines.append(f'{split}: no keyframe with images, so no {path.name} was written')
            continue
        check_entries(data_list, CATEGORIES, path.name)
        written[split] = path
        metainfo = our_metainfo(version, split, messages.rule, [count.name for _, count in parts], builder.frame)
        write_infos({'metainfo': metainfo, 'data_list': numbered(data_list)}, path)
        lines += [box_table(split, data_list), f'{split}: {len(data_list)} samples in {path}']
    print_log('\n'.join(lines))
    if not written:
        raise FileNotFoundError(f'no keyframe of {version} has its camera images under {root}: unpack samples/ there')
    return written


def convert_infos(
    path: str | Path,
    out_path: str | Path,
    root: str | Path | None = None,
    version: str | None = None,
    overwrite: bool = False,
    box_convention: str | None = None,
) -> Path:
    """Read an info file of any format that :func:`load_infos` knows and write it in this plugin's format.

    Args:
        path, root, version, box_convention: see :func:`load_infos`.
        out_path: the file to write.
        overwrite: replace an existing file.

    Returns:
        ``out_path``.

    Raises:
        FileExistsError: ``out_path`` exists already and ``overwrite`` is False.
        InputError: ``out_path`` is the file that is read.
        OSError: ``out_path`` cannot be written.
    """
    if not overwrite:
        _refuse_existing([Path(out_path)])
    refuse_unwritable(out_path, path)
    infos = load_infos(path, root, version, box_convention)
    write_infos(infos, out_path)
    print_log(f'{len(infos["data_list"])} samples in {out_path}')
    return Path(out_path)


def _refuse_existing(files: Iterable[Path]) -> None:
    existing = [str(path) for path in files if path.exists()]
    if existing:
        raise FileExistsError(f'already there: {", ".join(existing)}; give --overwrite (overwrite=True) to replace')


def write_infos(infos: dict, path: str | Path) -> None:
    """Pickle infos into a file, which is complete or does not exist; its folder is made if needed."""
    with atomic_write(path) as file:
        pickle.dump(infos, file, protocol=4)


def _scenes_of_splits(builder: EntryBuilder, splits: Splits, split_of: dict[str, str]) -> list[dict]:
    """Choose the scenes that get entries, and log which scenes belong to no split.

    Returns:
        Rows of ``scene``, ordered by the time at which the scenes start.

    Raises:
        InputError: two scenes of the tables have one name, or none belongs to a split.
    """
    tables = builder.tables
    names = [scene['name'] for scene in tables.scene]
    check_scene_names(names, splits, f'{builder.root}/{tables.version}')
    without_split = [name for name in names if name not in split_of]
    wanted = [scene for scene in tables.scene if scene['name'] in split_of]
    if without_split:
        print_log(
            f'{len(without_split)} scenes belong to no split of {splits.source} and are left out: '
            f'{first_names(without_split)}; own scenes get into a split with --splits FILE'
        )
    return sorted(wanted, key=lambda scene: tables.get('sample', scene['first_sample_token'])['timestamp'])


def _log_inputs(builder: EntryBuilder, messages: CanBusMessages, splits: Splits) -> None:
    """Log which splits are made and what the tables lack.

    Raises:
        InputError: no annotation is of a detection class.
    """
    if splits.source != 'nuScenes':
        used = ', '.join(f'{split} for {role}' for split, role in splits.roles.items())
        unused = [split for split in splits.scenes if split not in splits.roles]
        print_log(f'Splits of {splits.source}: {used}' + (f'; not used: {", ".join(unused)}' if unused else ''))
    present = {scene['name'] for scene in builder.tables.scene}
    for split in splits.roles:
        lacking = [name for name in splits.scenes[split] if name not in present]
        if lacking:
            print_log(f'{split}: {len(lacking)} of its scenes are not in the tables: {first_names(lacking)}')
    for line in describe_unmapped_categories(builder.tables.sample_annotation):
        print_log(line)
    if not builder.has_lidar:
        print_log(
            f"No {LIDAR} in the tables: boxes are given in a frame at the vehicle's origin, x right, y forward, z up, "
            'and the pose is that of the sensor nearest in time to the sample.'
        )
    if messages.rule == 'none':
        print_log(
            f'No CAN-bus folder in {builder.root}: acceleration, rotation rate and velocity of the vehicle are '
            'written as 0.'
        )


def _log_unused_messages(messages: CanBusMessages, counts: list[SceneCount]) -> None:
    """Log which scenes have CAN-bus messages none of which is near a keyframe."""
    names = [count.name for count in counts if count.without_can_bus == count.written > 0]
    unused = [name for name in names if messages.has_file(name)]
    if unused:
        print_log(
            f'{first_names(unused)}: no CAN-bus message is within {FARTHEST_MESSAGE / 1e6:g} s of a keyframe, so '
            'acceleration, rotation rate and velocity of the vehicle are written as 0; tools/check_data.py says how '
            'far off they are',
            level=logging.WARNING,
        )


def _refuse_absent_cameras(builder: EntryBuilder, scenes: list[dict]) -> None:
    """Refuse cameras without a single image on disk, unless this is so for all cameras.

    Raises:
        FileNotFoundError: naming these cameras.
    """
    samples = [sample for scene in scenes for sample in builder.keyframes(scene)]
    on_disk = [name for name in builder.cameras if any(builder.on_disk(sample, name) for sample in samples)]
    absent = [name for name in builder.cameras if name not in on_disk]
    if on_disk and absent:
        raise FileNotFoundError(
            f'{", ".join(absent)}: no image of its {len(samples)} keyframes is on disk under {builder.root}; unpack '
            f'it there, or make infos for the others with --cameras {" ".join(on_disk)}'
        )


def _build_scenes(builder: EntryBuilder, scenes: list[dict], workers: int) -> Iterator[tuple[list[dict], SceneCount]]:
    """Yield the entries and the counts of each scene, in the order of ``scenes``."""
    if workers == 1 or len(scenes) < 2:
        yield from map(builder.scene, scenes)
        return
    fork = multiprocessing.get_context('fork')
    with concurrent.futures.ProcessPoolExecutor(min(workers, len(scenes)), fork, _start_worker, (builder,)) as pool:
        yield from pool.map(_build_in_worker, scenes)


def _start_worker(builder: EntryBuilder) -> None:
    global _builder_of_worker
    _builder_of_worker = builder
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the main process, which ends the workers


def _build_in_worker(scene: dict) -> tuple[list[dict], SceneCount]:
    assert _builder_of_worker is not None, '_start_worker runs first'
    return _builder_of_worker.scene(scene)


_COLUMNS = ('keyframes', 'written', 'without_images', 'without_lidar', 'without_can_bus')  # fields of SceneCount
_TABLE_HEAD = f'{"scene":<24}{"keyframes":>10}{"written":>10}{"no images":>11}{"no lidar":>10}{"no CAN bus":>12}'


def _table_rows(split: str, counts: list[SceneCount]) -> list[str]:
    """Write a line for each scene that lacks something, then the totals of the split."""
    total = reduce(add, counts, SceneCount(f'{split}, {len(counts)} scenes'))
    lacking = [
        count for count in counts if count.written < count.keyframes or count.without_lidar or count.without_can_bus
    ]
    widths = (10, 10, 11, 10, 12)
    rows = [
        f'{count.name:<24}'
        + ''.join(f'{getattr(count, name):>{width}}' for name, width in zip(_COLUMNS, widths, strict=True))
        for count in [*lacking, total]
    ]
    return rows + [
        f'{split}: {camera} lacks the image of {absent} of {total.keyframes} keyframes'
        for camera, absent in sorted(total.absent_images.items())
    ]
