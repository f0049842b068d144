"""Makes the info files of a dataroot: scenes in parallel, one file per split, a table of what was left out."""

import concurrent.futures
import multiprocessing
import pickle
import signal
from functools import reduce
from operator import add
from pathlib import Path

from mmengine.logging import print_log
from nuscenes.utils.splits import create_splits_scenes
from tqdm import tqdm

from .atomic_write import atomic_write
from .can_bus import CanBusMessages, find_can_bus
from .formats import infos_file, load_infos, number, our_metainfo
from .nuscenes_tables import EntryBuilder, SceneCount, open_tables

SPLITS = {
    'v1.0-trainval': {'train': 'train', 'val': 'val'},
    'v1.0-mini': {'mini_train': 'train', 'mini_val': 'val'},
    'v1.0-test': {'test': 'test'},
}
_builder: EntryBuilder | None = None  # of a worker process, inherited by fork so that the tables are in memory once


def create_nuscenes_infos(
    root,
    version: str,
    out_dir=None,
    can_bus_dir=None,
    workers: int = 2,
    overwrite: bool = False,
    can_bus_message: str = 'nearest',
) -> dict[str, Path]:
    """Write ``nuscenes_infos_temporal_{train,val,test}.pkl`` for the splits of a version and print what they hold.

    Keyframes without all their camera images are left out and counted. LiDAR files and CAN bus are optional: without
    recorded messages the nine recorded channels are 0; the pose channels always come from the ``ego_pose`` table. A
    split none of whose keyframes has images gets no file.

    Args:
        root: nuScenes dataroot.
        version: 'v1.0-trainval', 'v1.0-mini' or 'v1.0-test'.
        out_dir: where the files go, default ``root``.
        can_bus_dir: the folder ``can_bus`` or its parent, default ``root/can_bus`` where it exists.
        workers: processes; the result does not depend on it.
        overwrite: replace existing files.
        can_bus_message: which recorded message belongs to a keyframe, see :class:`CanBusMessages`; for weights
            published by BEVFormer's authors 'official_v1'.

    Returns:
        The files written, by split name.

    Raises:
        FileNotFoundError: a folder, table or map is missing, or no keyframe at all has its images.
        FileExistsError: a file is there already and ``overwrite`` is False.
        ValueError: unknown version or ``can_bus_message``, no scene of a split, or fewer than one worker.
    """
    if workers < 1:
        raise ValueError(f'workers must be at least 1, got {workers}')
    messages = CanBusMessages(find_can_bus(root, can_bus_dir), can_bus_message)
    out_dir = Path(out_dir or root)
    files = {split: infos_file(out_dir, name) for split, name in SPLITS.get(version, {}).items()}
    if not overwrite:
        _refuse_existing(files.values())
    builder = EntryBuilder(open_tables(root, version), messages)
    if messages.rule == 'none':
        print_log(
            f'No CAN-bus folder in {root}: acceleration, rotation rate and velocity of the vehicle are written as 0.'
        )

    scenes = {name: split for split in files for name in create_splits_scenes()[split]}
    wanted = sorted(
        (scene for scene in builder.tables.scene if scene['name'] in scenes),
        key=lambda scene: builder.tables.get('sample', scene['first_sample_token'])['timestamp'],
    )
    if not wanted:
        raise ValueError(f'none of the scenes in {root}/{version} belongs to the splits {", ".join(files)}')
    results = list(tqdm(_build_scenes(builder, wanted, workers), total=len(wanted), desc='infos', unit='scene'))

    written, lines = {}, []
    for split, path in files.items():
        parts = [(entries, count) for entries, count in results if scenes[count.name] == split]
        data_list = [entry for entries, _ in parts for entry in entries]
        lines += _table_rows(split, [count for _, count in parts])
        if not data_list:
            lines.append(f'{split}: no keyframe with images, so no {path.name} was written')
            continue
        written[split] = path
        write_infos({'metainfo': our_metainfo(version, split, messages.rule), 'data_list': number(data_list)}, path)
        lines.append(f'{split}: {len(data_list)} samples in {path}')
    print_log('\n'.join([_TABLE_HEAD, *lines]))
    if not written:
        raise FileNotFoundError(f'no keyframe of {version} has its camera images under {root}: unpack samples/ there')
    return written


def convert_infos(path, out_path, root=None, version: str | None = None, overwrite: bool = False) -> Path:
    """Read an info file of any format that :func:`load_infos` knows and write it in ours.

    Raises:
        FileExistsError: ``out_path`` is there already and ``overwrite`` is False.
    """
    if not overwrite:
        _refuse_existing([Path(out_path)])
    infos = load_infos(path, root, version)
    write_infos(infos, out_path)
    print_log(f'{len(infos["data_list"])} samples in {out_path}')
    return Path(out_path)


def _refuse_existing(files) -> None:
    existing = [str(path) for path in files if path.exists()]
    if existing:
        raise FileExistsError(f'already there: {", ".join(existing)}; give --overwrite (overwrite=True) to replace')


def write_infos(infos: dict, path) -> None:
    """Pickle infos under ``path``, complete or not at all; makes the folder."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        pickle.dump(infos, file, protocol=4)


def _build_scenes(builder: EntryBuilder, scenes: list[dict], workers: int):
    """Entries and counts of each scene, in the order of ``scenes``."""
    if workers == 1 or len(scenes) < 2:
        yield from map(builder.scene, scenes)
        return
    fork = multiprocessing.get_context('fork')
    with concurrent.futures.ProcessPoolExecutor(min(workers, len(scenes)), fork, _start_worker, (builder,)) as pool:
        yield from pool.map(_build_in_worker, scenes)


def _start_worker(builder: EntryBuilder) -> None:
    global _builder
    _builder = builder
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the main process, which ends the workers


def _build_in_worker(scene: dict) -> tuple[list[dict], SceneCount]:
    return _builder.scene(scene)


_COLUMNS = ('keyframes', 'written', 'without_images', 'without_lidar', 'without_can_bus')
_TABLE_HEAD = f'{"scene":<24}{"keyframes":>10}{"written":>10}{"no images":>11}{"no lidar":>10}{"no CAN bus":>12}'


def _table_rows(split: str, counts: list[SceneCount]) -> list[str]:
    """A line per scene that lacks something, then the split's totals."""
    total = reduce(add, counts, SceneCount(f'{split}, {len(counts)} scenes'))
    lacking = [
        count for count in counts if count.written < count.keyframes or count.without_lidar or count.without_can_bus
    ]
    widths = (10, 10, 11, 10, 12)
    return [
        f'{count.name:<24}'
        + ''.join(f'{getattr(count, name):>{width}}' for name, width in zip(_COLUMNS, widths, strict=True))
        for count in [*lacking, total]
    ]
