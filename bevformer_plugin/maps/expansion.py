"""Reading the map expansion of nuScenes, version 1.3: one JSON file for each of its four locations."""

import functools
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
from mmengine.logging import print_log

from bevformer_plugin.errors import InputError

from .raster import oriented

VERSION = '1.3'
AREAS = (
    'drivable_area',
    'road_segment',
    'road_block',
    'lane',
    'lane_connector',
    'ped_crossing',
    'walkway',
    'stop_line',
    'carpark_area',
)
LINES = ('road_divider', 'lane_divider', 'traffic_light')
LOCATIONS = ('boston-seaport', 'singapore-hollandvillage', 'singapore-onenorth', 'singapore-queenstown')
FOLDER = 'maps/expansion'
DOWNLOAD = '"Map expansion pack (v1.3)" of https://www.nuscenes.org/nuscenes#download'

Polygon = list[np.ndarray]  # a counter-clockwise outline (n, 2), then clockwise ones of holes, global metres


@dataclass(frozen=True)
class _Layer:
    """Shapes of one layer with an index of where they are.

    Attributes:
        shapes: for polygons their rings, for a line one array (n, 2); global metres.
        tree: over the bounding boxes of the shapes.
    """

    shapes: list[Polygon]
    tree: shapely.STRtree

    @classmethod
    def of(cls, shapes: list[Polygon]) -> '_Layer':
        bounds = [[*shape[0].min(axis=0), *shape[0].max(axis=0)] for shape in shapes]
        return cls(shapes, shapely.STRtree(shapely.box(*np.array(bounds).reshape(-1, 4).T)))

    def within(self, bounds: tuple[float, float, float, float]) -> list[np.ndarray]:
        """Collect the rings or lines whose boxes overlap (x_min, y_min, x_max, y_max), in the order of the file."""
        found = np.sort(self.tree.query(shapely.box(*bounds)))
        return [ring for index in found for ring in self.shapes[index]]


@dataclass(frozen=True)
class MapExpansion:
    """Some layers of the map of a location.

    Attributes:
        location: such as boston-seaport.
        layers: by name.
    """

    location: str
    layers: dict[str, _Layer]

    def shapes(self, names: Sequence[str], bounds: tuple[float, float, float, float]) -> list[np.ndarray]:
        """Collect what of some layers may reach into a part of the map.

        Args:
            names: of the layers.
            bounds: (x_min, y_min, x_max, y_max) in global metres.

        Returns:
            Outlines of polygons and of their holes, see :func:`fill_polygons`, or lines, (n, 2) in global metres.
        """
        return [shape for name in names for shape in self.layers[name].within(bounds)]


def expansion_file(root: str | Path, location: str) -> Path:
    """Return where the map expansion of a location belongs in a dataroot."""
    return Path(root, FOLDER, f'{location}.json')


def read_expansion(root: str | Path, location: str, layers: Sequence[str], needed_by: str) -> MapExpansion:
    """Read layers of the map of a location.

    Polygons that cross themselves are mended by Shapely's ``make_valid``. Lines of fewer than two points, of which the
    published files have some, are left out with a warning.

    Args:
        root: nuScenes dataroot.
        location: as in the table ``log``.
        layers: any of ``AREAS`` and ``LINES``.
        needed_by: names in errors what needs the file.

    Raises:
        FileNotFoundError: there is no such file; the message names it and says where it comes from.
        InputError: the file is of another version or broken.
    """
    path = expansion_file(root, location)
    if not path.is_file():
        remedy = (
            f'download {DOWNLOAD} and unpack it in {Path(root, "maps")}, so that {Path(root, FOLDER)} holds '
            f'{location}.json'
            if location in LOCATIONS
            else f'nuScenes has maps of {", ".join(LOCATIONS)} only. Write this one in their format, or make a '
            'synthetic world again with tools/create_synthetic.py'
        )
        raise FileNotFoundError(f'no map expansion {path}, which {needed_by} needs: {remedy}')
    return _read(path.resolve(), location, tuple(sorted(layers)), path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _read(path: Path, location: str, names: tuple[str, ...], changed: int) -> MapExpansion:
    """Read a file once for all datasets of a process; ``changed`` is when the file was written."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f'{path} is not JSON ({error}): unpack {DOWNLOAD} again') from None
    version = content.get('version', '1.0') if isinstance(content, dict) else None
    if version != VERSION:
        raise InputError(f'{path} is a map expansion of version {version}, not {VERSION}: take {DOWNLOAD}')
    missing = [key for key in ('node', 'polygon', 'line', *names) if key not in content]
    if missing:
        raise InputError(f'{path} lacks {", ".join(missing)}: unpack {DOWNLOAD} again')
    try:
        reader = _Reader(content)
        layers = {name: _Layer.of(reader.layer(name)) for name in names}
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f'{path} is broken ({type(error).__name__}: {error}): unpack {DOWNLOAD} again') from error
    if reader.short_lines:
        print_log(
            f'{path}: {reader.short_lines} lines have fewer than two points and are left out',
            logger='current',
            level=logging.WARNING,
        )
    return MapExpansion(location, layers)


class _Reader:
    """Turns the records of a file, which refer to each other by tokens, into arrays."""

    def __init__(self, content: dict) -> None:
        self.content = content
        self.index = {node['token']: index for index, node in enumerate(content['node'])}
        self.points = np.array([[node['x'], node['y']] for node in content['node']], dtype=np.float64).reshape(-1, 2)
        if not np.isfinite(self.points).all():
            raise ValueError('a node is not finite')
        self.polygons = {record['token']: record for record in content['polygon']}
        self.lines = {record['token']: record for record in content['line']}
        self.short_lines = 0

    def layer(self, name: str) -> list[Polygon]:
        """Collect the shapes of a layer."""
        read: Callable[[dict], list[Polygon]] = self._areas_of if name in AREAS else self._lines_of
        return [shape for record in self.content[name] for shape in read(record)]

    def _areas_of(self, record: dict) -> list[Polygon]:
        tokens = record['polygon_tokens'] if 'polygon_tokens' in record else [record['polygon_token']]
        return [polygon for token in tokens for polygon in self._polygon(self.polygons[token])]

    def _polygon(self, record: dict) -> list[Polygon]:
        exterior = self._nodes(record['exterior_node_tokens'])
        holes = [self._nodes(hole['node_tokens']) for hole in record['holes']]
        if len(exterior) < 3:
            return []
        polygon = shapely.Polygon(exterior, [hole for hole in holes if len(hole) > 2])
        valid = polygon if polygon.is_valid else shapely.make_valid(polygon)
        parts = [part for part in shapely.get_parts(shapely.get_parts(valid)) if part.geom_type == 'Polygon']
        return [
            [
                oriented(np.asarray(part.exterior.coords)[:-1, :2], counter_clockwise=True),
                *(oriented(np.asarray(hole.coords)[:-1, :2], counter_clockwise=False) for hole in part.interiors),
            ]
            for part in parts
        ]

    def _lines_of(self, record: dict) -> list[Polygon]:
        points = self._nodes(self.lines[record['line_token']]['node_tokens'])
        if len(points) < 2:
            self.short_lines += 1
            return []
        return [[points]]

    def _nodes(self, tokens: list[str]) -> np.ndarray:
        return self.points[[self.index[token] for token in tokens]].reshape(-1, 2)
