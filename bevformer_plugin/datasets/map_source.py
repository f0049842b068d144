"""Where the true maps of a dataset's keyframes come from: its boxes, and the map expansions of their locations."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from bevformer_plugin.errors import InputError
from bevformer_plugin.maps import Footprints, MapProtocol, map_labels, read_expansion


class MapSource:
    """Makes the true maps of keyframes.

    Args:
        data_root: nuScenes dataroot with the tables ``scene`` and ``log`` of the version, and ``maps/expansion``.
        version: nuScenes version of the infos.
        scene_tokens: of all scenes of the dataset.
        protocol: what is drawn.

    Raises:
        FileNotFoundError: a table or the map expansion of a location is missing.
        InputError: a table or a map expansion is broken.
    """

    def __init__(self, data_root: Path, version: str, scene_tokens: Iterable[str], protocol: MapProtocol) -> None:
        self.protocol = protocol
        self.location_of = _locations(data_root, version, set(scene_tokens))
        self.expansions = {
            location: read_expansion(
                data_root, location, protocol.areas + protocol.lines, f'map_protocol={protocol.name!r}'
            )
            for location in sorted(set(self.location_of.values()))
        }

    def labels(self, frame: dict) -> np.ndarray:
        """Make the true map of a keyframe.

        Args:
            frame: item of the dataset, with ``scene_token``, ``ego2global``, ``lidar2ego`` and ``footprints``.

        Returns:
            (classes, rows, columns) uint8, see :func:`map_labels`.
        """
        expansion = self.expansions[self.location_of[frame['scene_token']]]
        return map_labels(self.protocol, expansion, frame['footprints'], frame['ego2global'], frame['lidar2ego'])


def footprints_of(instances: list[dict], names: dict[int, str]) -> Footprints:
    """Make the footprints of all instances of an info entry; ``names`` are the classes by label."""
    return Footprints.of_boxes(
        np.array([instance['bbox_3d'] for instance in instances], dtype=np.float64).reshape(-1, 7),
        np.array([names[instance['bbox_label_3d']] for instance in instances], dtype=str),
        np.array([instance['visibility'] for instance in instances], dtype=np.int64),
    )


def require_boxes(entries: list[dict], protocol: MapProtocol, path: str) -> None:
    """Refuse infos without a single box, as of a test split, if the protocol has classes that are made of boxes.

    Raises:
        InputError: naming the infos and the classes.
    """
    of_boxes = [one.name for one in protocol.classes if one.boxes]
    if of_boxes and not any(entry['instances'] for entry in entries):
        raise InputError(
            f'{path} holds no boxes, of which the classes {", ".join(of_boxes)} of map_protocol={protocol.name!r} are '
            'made: to predict maps that nobody scores, give tools/test.py --format-only and --maps-out, or take the '
            'infos of a split with annotations'
        )


def require_visibility(entries: list[dict], protocol: MapProtocol) -> None:
    """Refuse infos that do not say how visible objects are, if the protocol depends on it.

    Raises:
        InputError: naming the protocol and how many boxes are concerned.
    """
    if protocol.least_visibility <= 1:
        return
    levels = [instance['visibility'] for entry in entries for instance in entry['instances']]
    if 0 in levels:
        raise InputError(
            f'map_protocol={protocol.name!r} leaves boxes of low visibility out, but {levels.count(0)} of '
            f'{len(levels)} boxes have no known visibility: make infos from tables that have it '
            '(tools/create_data.py nuscenes), or take another protocol'
        )


def _locations(data_root: Path, version: str, scenes: set[str]) -> dict[str, str]:
    """Read from the tables in which location each scene lies, by the scene's token."""
    rows = {name: _table(data_root / version / f'{name}.json') for name in ('scene', 'log')}
    try:
        location_of_log = {row['token']: row['location'] for row in rows['log']}
        found = {row['token']: location_of_log[row['log_token']] for row in rows['scene'] if row['token'] in scenes}
    except (KeyError, TypeError) as error:
        raise InputError(
            f'scene.json and log.json in {data_root / version} do not fit together ({type(error).__name__}: {error}): '
            'unpack the metadata archive again'
        ) from error
    nowhere = next((location for location in found.values() if not isinstance(location, str) or not location), '')
    if nowhere != '':
        raise InputError(
            f'log.json in {data_root / version} has location {nowhere!r}, and the name of a map expansion is needed: '
            'unpack the metadata archive again'
        )
    unknown = sorted(scenes - found.keys())
    if unknown:
        raise InputError(
            f'scene {unknown[0]} of the infos is not in {data_root / version}/scene.json, which names the location '
            'whose map is needed: give the tables that the infos were made from'
        )
    return found


def _table(path: Path) -> list[dict]:
    if not path.is_file():
        raise FileNotFoundError(
            f'no table {path}, which says where scenes lie, for their maps: unpack the metadata archive there'
        )
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f'{path} is not JSON ({error}): unpack the metadata archive again') from None
