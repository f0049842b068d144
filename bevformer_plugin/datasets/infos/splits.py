"""Which scenes are for training, validation and test: nuScenes' own splits, or a file of splits for own data."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nuscenes.utils.splits import create_splits_scenes

from bevformer_plugin.errors import InputError
from bevformer_plugin.nuscenes_format import OFFICIAL_SPLITS

ROLES = ('train', 'val', 'test')


@dataclass(frozen=True)
class Splits:
    """The splits of a dataroot's version.

    Attributes:
        source: 'nuScenes', or the file that they come from.
        scenes: scene names by split name.
        roles: 'train', 'val' or 'test' by split name, of the splits that get info files.
    """

    source: str
    scenes: dict[str, list[str]]
    roles: dict[str, str]

    def split_of(self) -> dict[str, str]:
        """The split of each scene name, of the splits that get info files."""
        return {name: split for split in self.roles for name in self.scenes[split]}


def find_splits(root, version: str, path=None) -> Splits:
    """The splits of a version: of a file that is given, of ``ROOT/VERSION/splits.json``, or nuScenes' own.

    The file is the devkit's: a JSON object, split name -> list of scene names. The split whose name ends in 'train' is
    for training, in 'val' for validation, in 'test' for test; at most one of each, others get no info file.

    Args:
        root: nuScenes dataroot.
        version: name of the folder of tables.
        path: splits file.

    Raises:
        FileNotFoundError: ``path`` is not there.
        InputError: the file is no such mapping, or several of its splits are for the same; a split changes what the
            devkit has fixed; or a version that nuScenes does not have comes without a file.
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


def is_official(split: str | None, version: str) -> bool:
    """Whether the scenes of a split are fixed by nuScenes: the devkit knows it, and as one of this version.

    The devkit's splits for detection and tracking divide the training scenes of v1.0-trainval.
    """
    if split not in create_splits_scenes():
        return False
    owner = next((name for name, splits in OFFICIAL_SPLITS.items() if split in splits), 'v1.0-trainval')
    return owner == version


def role_of(split: str) -> str | None:
    """What a split is for by the end of its name: 'train', 'val' or 'test', or None."""
    return next((role for role in ROLES if split.lower().endswith(role)), None)


def default_split(roles: dict[str, str]) -> str | None:
    """The split that is evaluated unless another is named: that for validation, else that for test."""
    return next((split for role in ('val', 'test') for split, its in roles.items() if its == role), None)


def recognise_split(names: Iterable[str], version: str) -> str | None:
    """The official split of a version that holds all these scenes; None if there is none."""
    names = set(names)
    splits = create_splits_scenes()
    return next((split for split in OFFICIAL_SPLITS.get(version, ()) if names <= set(splits[split])), None)


def _read(file: Path) -> dict[str, list[str]]:
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
    roles = {split: role for split in scenes if (role := role_of(split))}
    if not roles:
        raise InputError(
            f'splits file {file} has {", ".join(scenes)}: name a split so that it ends in train, val or test to say '
            'what it is for'
        )
    for role in ROLES:
        same = [split for split, its in roles.items() if its == role]
        if len(same) > 1:
            raise InputError(
                f'splits file {file} has several splits for {role}: {", ".join(same)}; leave one of them in a file '
                'of your own and give it with --splits'
            )
    owner = {}
    for split in roles:
        for name in scenes[split]:
            if name in owner:
                raise InputError(
                    f'splits file {file}: scene {name} is in {owner[name]} and in {split}; a scene belongs to one'
                )
            owner[name] = split
    return roles
