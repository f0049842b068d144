"""Reading info files of three kinds, which are told apart by their content, and converting them to one format.

- This plugin's own: ``dict(metainfo=..., data_list=[entry per keyframe])``, scene by scene and in time order.
- The published BEVFormer's: ``dict(infos, metadata)`` with float64 poses as quaternions.
- mmdetection3d 1.4's ("stock"): like this plugin's without the temporal fields, with float32 matrices and image names
  without folders.
"""

import math
import pickle
from collections.abc import Iterable
from pathlib import Path

from mmengine.fileio import load
from nuscenes import NuScenes

from bevformer_plugin.errors import InputError

from .can_bus import CanBusMessages, find_can_bus
from .entry_checks import check_entries
from .nuscenes_tables import CATEGORIES, EntryBuilder, attribute_name, visibility_level
from .published import PUBLISHED_KEYS, convert_published
from .splits import recognise_split
from .table_files import open_tables, refuse_tables_that_do_not_fit

INFO_VERSION = '1.2'
INFO_KIND = 'bevformer_temporal'
REMEDY = 'make infos with: python tools/create_data.py nuscenes --root ROOT --version VERSION'


def infos_file(folder: str | Path, role: str) -> Path:
    """Return the path of the info file for 'train', 'val' or 'test' in a folder."""
    return Path(folder, f'nuscenes_infos_temporal_{role}.pkl')


def our_metainfo(version: str, split: str | None, can_bus: str, scenes: list[str], frame: str) -> dict:
    """Make the ``metainfo`` of a file in this plugin's format.

    Args:
        version: nuScenes version.
        split: name of the split, or None if it is not known.
        can_bus: a rule of :class:`CanBusMessages`, or 'none'.
        scenes: names of the split's scenes, also of those without a keyframe in the file.
        frame: frame of boxes and BEV, 'lidar', or 'vehicle' if the tables have no LIDAR_TOP.
    """
    return {
        'dataset': 'nuscenes',
        'version': version,
        'split': split,
        'info_version': INFO_VERSION,
        'info_kind': INFO_KIND,
        'categories': dict(CATEGORIES),
        'can_bus': can_bus,
        'scenes': scenes,
        'frame': frame,
    }


def numbered(entries: list[dict]) -> list[dict]:
    """Return the entries with their position in the list as ``sample_idx``."""
    return [dict(sample_idx=index, **entry) for index, entry in enumerate(entries)]


def load_infos(
    path: str | Path,
    root: str | Path | None = None,
    version: str | None = None,
    box_convention: str | None = None,
) -> dict:
    """Read an info file of any of the three kinds, check its numbers and return it in this plugin's format.

    A file of the published BEVFormer holds no scene names, annotation tokens or attributes. Scene names are read from
    the tables if ``root`` is given, else scene tokens stand for them; tokens and attributes of annotations become '',
    visibilities 0 (unknown). Of a file of mmdetection3d 1.4 only the samples and their boxes are taken; all else is
    looked up by token in the tables under ``root``, which takes a minute and some gigabytes for v1.0-trainval:
    convert it once with ``tools/create_data.py convert``.

    Args:
        path: the pickle.
        root: nuScenes dataroot.
        version: if given, the file must be of this version.
        box_convention: 'old' or 'new', see :func:`convert_published`; only for published files whose convention
            cannot be told from their classes.

    Returns:
        ``dict(metainfo=..., data_list=[...])``.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: the file is no info file or of another version, it is empty or holds broken numbers, it is one of
            mmdetection3d and ``root`` is not given, or ``box_convention`` is needed, has no effect or contradicts the
            boxes.
    """
    return infos_of(read_info_file(path), path, root, version, box_convention)


def read_info_file(path: str | Path) -> tuple[str, dict]:
    """Read an info file and tell its kind, without looking at its numbers.

    Returns:
        'ours', 'published' or 'stock', see the module's docstring, and the content of the file.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: the file is no pickle, or no info file of nuScenes.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'no info file {path}: {REMEDY}')
    try:
        content = load(str(path), file_format='pkl')
    except (pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, KeyError, ValueError) as error:
        raise InputError(f'{path} is not a readable pickle ({type(error).__name__}: {error}): {REMEDY}') from error
    return _kind_of(content, path), content


def infos_of(
    file: tuple[str, dict],
    path: str | Path,
    root: str | Path | None = None,
    version: str | None = None,
    box_convention: str | None = None,
) -> dict:
    """Check what :func:`read_info_file` returned and return it in this plugin's format.

    All other arguments, the result and what is raised are those of :func:`load_infos`.
    """
    kind, content = file
    metainfo = content['metadata' if kind == 'published' else 'metainfo']
    require_matching(metainfo, version)
    if box_convention is not None and kind != 'published':
        raise InputError(f'{path} is no published file, so the convention of its boxes is known: leave it out')
    if kind == 'ours':
        infos = content
    elif kind == 'published':
        entries = convert_published(content['infos'], root, metainfo['version'], box_convention)
        infos = _finish(entries, metainfo['version'], 'official_v1', 'lidar')
    else:
        infos = _load_stock(content, root, path)
    check_entries(infos['data_list'], infos['metainfo']['categories'], path)
    return infos


def require_matching(
    metainfo: dict, version: str | None = None, classes: Iterable[str] | None = None, split: str | None = None
) -> None:
    """Refuse infos that are not what a dataset or an evaluation expects; arguments that are None are not checked.

    Args:
        metainfo: ``metainfo`` of the infos from :func:`load_infos`.
        version: nuScenes version.
        classes: names that the infos must label, in any order; the infos may label more.
        split: devkit split, such as 'mini_val'; infos that do not know their split pass.

    Raises:
        InputError: naming the value expected and the value of the infos.
    """
    if version is not None and metainfo['version'] != version:
        raise InputError(
            f'the infos are of nuScenes {metainfo["version"]}, not {version}: give infos and version that match'
        )
    if split is not None and metainfo['split'] not in (None, split):
        of_infos = metainfo['split']
        raise InputError(
            f'the infos are of split {of_infos}, not {split}: give infos of {split}, or score those of {of_infos} '
            f'with test_evaluator.split={of_infos} (in training val_evaluator.split, of tools/evaluate.py --split '
            f'{of_infos})'
        )
    unknown = [name for name in classes or () if name not in metainfo['categories']]
    if unknown:
        raise InputError(
            f'the infos know no class {", ".join(unknown)}: theirs are {", ".join(metainfo["categories"])}'
        )


def _load_stock(content: dict, root: str | Path | None, path: str | Path) -> dict:
    """Convert the content of a file of mmdetection3d 1.4 to this plugin's format."""
    if root is None:
        raise InputError(
            f'{path} is an info file of mmdetection3d, without scenes, order and CAN bus: give the nuScenes root, '
            f'from whose tables they are joined, or {REMEDY}'
        )
    version, messages = content['metainfo']['version'], CanBusMessages(find_can_bus(root))
    builder = EntryBuilder(open_tables(root, version), messages)
    with refuse_tables_that_do_not_fit(builder.tables, f'the samples in {path}'):
        entries = _join_stock(content, builder, path)
    return _finish(entries, version, messages.rule, builder.frame)


def _kind_of(content: object, path: str | Path) -> str:
    """Return the kind of a file's content, 'ours', 'published' or 'stock'.

    Raises:
        InputError: the content is of no known kind, or lacks what every file of its kind has.
    """
    found = f'keys {", ".join(map(str, content))}' if isinstance(content, dict) else f'a {type(content).__name__}'
    for key in ('metainfo', 'metadata'):
        if isinstance(content, dict) and not isinstance(content.get(key, {}), dict):
            raise InputError(f'the {key} of {path} is {content[key]!r}, not a dict: {REMEDY}')
    if isinstance(content, dict) and {'metainfo', 'data_list'} <= content.keys():
        kind, entries, metainfo = _kind_of_new(content['metainfo'], path), content['data_list'], content['metainfo']
    elif isinstance(content, dict) and {'infos', 'metadata'} <= content.keys():
        kind, entries, metainfo = 'published', content['infos'], content['metadata']
    else:
        raise InputError(f'{path} is no info file of nuScenes: found {found}; {REMEDY}')
    if not entries or not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f'{path} holds no list of samples: {REMEDY}')
    if kind == 'published':
        missing = sorted(PUBLISHED_KEYS - entries[0].keys())
        if missing:
            raise InputError(
                f'{path} is an info file of mmdetection3d before 1.1 but not one of BEVFormer: its samples lack '
                f'{", ".join(missing)}; {REMEDY}'
            )
    if kind == 'stock' and not {'token', 'images'} <= entries[0].keys():
        raise InputError(f'{path} is no info file of nuScenes: its samples lack token or images; {REMEDY}')
    if 'version' not in metainfo:
        raise InputError(f'{path} does not say of which nuScenes version it is: {REMEDY}')
    return kind


def _kind_of_new(metainfo: dict, path: str | Path) -> str:
    """Tell a file of this plugin ('ours') from one of mmdetection3d 1.4 ('stock') by its metainfo.

    Raises:
        InputError: it is of another data set, of another version of the format, or lacks something.
    """
    if metainfo.get('dataset') != 'nuscenes':
        raise InputError(
            f'{path} is an info file of {metainfo.get("dataset", "another dataset")}, not of nuscenes: {REMEDY}'
        )
    if 'info_kind' not in metainfo:
        return 'stock'
    kind = metainfo['info_kind'], metainfo.get('info_version')
    if kind != (INFO_KIND, INFO_VERSION):
        raise InputError(
            f'{path} is of kind {" ".join(map(str, kind))}, not {INFO_KIND} {INFO_VERSION}: {REMEDY} --overwrite'
        )
    missing = [key for key in ('version', 'split', 'categories', 'can_bus', 'scenes', 'frame') if key not in metainfo]
    if missing:
        raise InputError(f'the metainfo of {path} lacks {", ".join(missing)}: {REMEDY} --overwrite')
    types = {'version': str, 'categories': dict, 'can_bus': str, 'scenes': list, 'frame': str}
    for key, kind in types.items():
        if not isinstance(metainfo[key], kind):
            raise InputError(f'{key} in the metainfo of {path} is {metainfo[key]!r}, not a {kind.__name__}: {REMEDY}')
    return 'ours'


def _finish(entries: list[dict], version: str, can_bus: str, frame: str) -> dict:
    """Make infos of converted entries: scenes in the order of their starts, entries in time order and numbered."""
    starts: dict[str, float] = {}
    for entry in entries:
        starts[entry['scene_token']] = min(entry['timestamp'], starts.get(entry['scene_token'], math.inf))
    entries = sorted(
        entries, key=lambda entry: (starts[entry['scene_token']], entry['scene_token'], entry['timestamp'])
    )
    names = list(dict.fromkeys(entry['scene_name'] for entry in entries))
    split = recognise_split(names, version)
    return {'metainfo': our_metainfo(version, split, can_bus, names, frame), 'data_list': numbered(entries)}


def _join_stock(content: dict, builder: EntryBuilder, path: str | Path) -> list[dict]:
    """Build entries from the tables, with the boxes of a file of mmdetection3d 1.4.

    Matrices and rotations come from the tables too, because those of the file are float32 and do not tell the signs
    of quaternions.
    """
    names = {index: name for name, index in content['metainfo'].get('categories', CATEGORIES).items()}
    tables = builder.tables
    frames: dict[str, tuple[dict, int, dict | None]] = {}
    entries: list[dict] = []
    wanted = {item['token'] for item in content['data_list']}
    for scene in tables.scene:
        samples = list(builder.keyframes(scene))
        if wanted.isdisjoint(sample['token'] for sample in samples):
            continue
        messages = builder.messages.of_keyframes(scene['name'], [sample['timestamp'] for sample in samples])
        for frame_idx, (sample, message) in enumerate(zip(samples, messages, strict=True)):
            frames[sample['token']] = sample, frame_idx, message
    for item in content['data_list']:
        if item['token'] not in frames:
            raise InputError(
                f'{path}: sample {item["token"]} is not in the tables of {tables.version} in {builder.root}'
            )
        sample, frame_idx, message = frames[item['token']]
        entry = builder.keyframe(sample, frame_idx, message)
        entry['instances'] = _stock_instances(item, sample, names, tables, path)
        entries.append(entry)
    return entries


def _stock_instances(
    item: dict, sample: dict, names: dict[int, str], tables: NuScenes, path: str | Path
) -> list[dict]:
    """Convert the instances of an entry of mmdetection3d 1.4, which are in the order of the sample's annotations."""
    instances = item.get('instances', [])
    if instances and len(instances) != len(sample['anns']):
        raise InputError(
            f'{path}: sample {item["token"]} has {len(instances)} instances but the tables have '
            f'{len(sample["anns"])}: {REMEDY}'
        )
    joined = []
    for instance, token in zip(instances, sample['anns'], strict=bool(instances)):
        name = names.get(instance['bbox_label_3d'])
        if name not in CATEGORIES:
            continue
        annotation = tables.get('sample_annotation', token)
        joined.append(
            {
                'bbox_label_3d': CATEGORIES[name],
                'bbox_label': CATEGORIES[name],
                'bbox_3d': [float(value) for value in instance['bbox_3d']],
                'bbox_3d_isvalid': bool(instance['bbox_3d_isvalid']),
                'velocity': [float(value) for value in instance['velocity']],
                'num_lidar_pts': int(instance['num_lidar_pts']),
                'num_radar_pts': int(instance['num_radar_pts']),
                'visibility': visibility_level(tables, annotation),
                'instance_token': annotation['instance_token'],
                'attribute': attribute_name(tables, annotation),
            }
        )
    return joined
