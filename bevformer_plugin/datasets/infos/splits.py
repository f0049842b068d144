"""Which scenes are for training, validation and test: nuScenes' own splits, or a file of splits for your own data."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nuscenes.utils.splits import create_splits_scenes

from bevformer_plugin.errors import InputError
from bevformer_plugin.nuscenes_format import OFFICIAL_SPLITS

ROLES = ('train', 'val', 'test')
NAMED_SCENES = 5  # the log and messages name so many scenes at most


@dataclass(frozen=True)
class Splits:
    """The splits of a dataroot's version.

    Attributes:
        source: 'nuScenes', or the path of the file that gives the splits.
        scenes: scene names by split name.
        roles: what a split is for, 'train', 'val' or 'test', by split name; only splits with a role get info files.
    """

    source: str
    scenes: dict[str, list[str]]
    roles: dict[str, str]

    def split_of(self) -> dict[str, str]:
        """Return the split of each scene, by scene name, for the splits that get info files."""
        return {name: split for split in self.roles for name in self.scenes[split]}


def find_splits(root: str | Path, version: str, path: str | Path | None = None) -> Splits:
    """Find the splits of a version: those of a given file, of ``ROOT/VERSION/splits.json``, or nuScenes' own.

    The file is of the devkit's format, a JSON object, split name -> list of scene names. The split whose name ends in
    'train' is for training, in 'val' for validation, in 'test' for testing. There may be one of each at most; a split
    with another name gets no info file.

    Args:
        root: nuScenes dataroot.
        version: name of the folder of tables.
        path: splits file.

    Raises:
        FileNotFoundError: ``path`` does not exist.
        InputError: the file is no such mapping, several of its splits have one role, a split of nuScenes has other
            scenes than there, or nuScenes has no such version and there is no file.
    """
    file = Path(root, version, 'splits.json') if path is None else Path(path)
    if path is None and not file.is_file():
        if version not in OFFICIAL_SPLITS:
            raise InputError(
                f'nuScenes has no version {version}, whose splits would be known: write {file} or give '
                '--splits FILE, a JSON object such as {"train": ["scene names"], "val": ["scene names"]}'
            )
        roles = OFFICIAL_SPLITS[version]
        return Splits('nuScenes', {split: create_splits_scenes()[split] for split in roles}, dict(roles))
    scenes = _read(file)
    _refuse_changed(scenes, version, file)
    return Splits(str(file), scenes, _roles(scenes, file))


def check_scene_names(names: list[str], splits: Splits, where: str) -> None:
    """Refuse scenes of which two have one name, or none is in a split.

    Args:
        names: of the scenes in the tables.
        splits: from :func:`find_splits`.
        where: folder of the tables, which errors name.

    Raises:
        InputError: naming a repeated name, or the scenes and the splits.
    """
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise InputError(
            f'scene.json has several scenes named {repeated[0]}: splits name scenes, so names must differ'
        )
    if not splits.split_of().keys() & set(names):
        raise InputError(
            f'none of the scenes in {where} ({first_names(names)}) belongs to the splits '
            f'{", ".join(splits.roles)} of {splits.source}: give --splits FILE, a JSON object such as '
            '{"train": ["scene names"], "val": ["scene names"]}'
        )


def first_names(names: list[str]) -> str:
    """List the first few of many names."""
    return ', '.join(names[:NAMED_SCENES]) + (', ...' if len(names) > NAMED_SCENES else '')


def is_official(split: str | None, version: str) -> bool:
    """Return whether nuScenes fixes the scenes of a split of this version.

    The devkit also knows splits for detection and tracking, which divide the training scenes of v1.0-trainval.
    """
    if split not in create_splits_scenes():
        return False
    owner = next((name for name, splits in OFFICIAL_SPLITS.items() if split in splits), 'v1.0-trainval')
    return owner == version


def role_of(split: str) -> str | None:
    """Tell what a split is for by the end of its name: 'train', 'val' or 'test', or None for another name."""
    return next((role for role in ROLES if split.lower().endswith(role)), None)


def default_split(roles: dict[str, str]) -> str | None:
    """Choose the split to evaluate if none is named: the one for validation, else the one for testing.

    Args:
        roles: what each split is for, see :class:`Splits`.

    Returns:
        Its name, or None if there is neither.
    """
    split_by_role = {role: split for split, role in roles.items()}
    return split_by_role.get('val') or split_by_role.get('test')


def recognise_split(names: Iterable[str], version: str) -> str | None:
    """Return the official split of a version that holds all these scenes, or None if there is none."""
    names = set(names)
    splits = create_splits_scenes()
    return next((split for split in OFFICIAL_SPLITS.get(version, ()) if names <= set(splits[split])), None)


def _read(file: Path) -> dict[str, list[str]]:
    """Read a splits file; errors are those of :func:`find_splits`."""
    if not file.is_file():
        raise FileNotFoundError(f'no splits file {file}: a JSON object, split name -> list of scene names')
    try:
        content = json.loads(file.read_text())
    except ValueError as error:
        raise InputError(f'splits file {file} is not JSON: {error}') from None
    if not isinstance(content, dict) or not content:
        raise InputError(f'splits file {file} is no JSON object of split name -> list of scene names')
    for split, names in content.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InputError(f'splits file {file}: split {split!r} is no list of scene names')
        repeated = [name for name, count in Counter(names).items() if count > 1]
        if repeated:
            raise InputError(f'splits file {file}: split {split} names scene {repeated[0]} twice')
    return content


def _refuse_changed(scenes: dict[str, list[str]], version: str, file: Path) -> None:
    """Refuse splits that have a name of nuScenes and other scenes than there."""
    official = create_splits_scenes()
    changed = [
        split for split, names in scenes.items() if is_official(split, version) and set(names) != set(official[split])
    ]
    if changed:
        raise InputError(
            f'splits file {file} gives split {changed[0]} other scenes than nuScenes, whose scores it would seem to '
            f'have: give it a name of its own, such as my_{changed[0]}'
        )


def _roles(scenes: dict[str, list[str]], file: Path) -> dict[str, str]:
    """Return what each split is for, without those that are for nothing.

    Raises:
        InputError: there is none, several have one role, or a scene is in several.
    """
    roles = {split: role for split in scenes if (role := role_of(split))}
    if not roles:
        raise InputError(
            f'splits file {file} has {", ".join(scenes)}: name a split so that it ends in train, val or test to say '
            'what it is for'
        )
    for role in ROLES:
        of_role = [split for split in roles if roles[split] == role]
        if len(of_role) > 1:
            raise InputError(
                f'splits file {file} has several splits for {role}: {", ".join(of_role)}; leave one of them in a file '
                'of your own and give it with --splits'
            )
    owner: dict[str, str] = {}
    for split in roles:
        for name in scenes[split]:
            if name in owner:
                raise InputError(
                    f'splits file {file}: scene {name} is in {owner[name]} and in {split}; a scene belongs to one'
                )
            owner[name] = split
    return roles
