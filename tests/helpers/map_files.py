"""Map expansions in the format of nuScenes, written from plain lists of points."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bevformer_plugin.maps.expansion import AREAS, LINES

Polygon = Sequence[np.ndarray]  # an outline (n, 2) and those of holes


class ExpansionFile:
    """Collects polygons and lines of a location; tokens are running numbers."""

    def __init__(self) -> None:
        layers = ('polygon', 'line', 'node', *AREAS, *LINES)
        self.content: dict = {'version': '1.3', 'canvas_edge': [1000, 1000], **{name: [] for name in layers}}
        self.content |= {'arcline_path_3': {}, 'connectivity': {}}

    def add_area(self, layer: str, polygon: Polygon) -> None:
        """Append a polygon, global metres, whose rings may have either sense of rotation."""
        exterior, *holes = (self._nodes(ring) for ring in polygon)
        record = {'exterior_node_tokens': exterior, 'holes': [{'node_tokens': hole} for hole in holes]}
        token = self._add('polygon', record)
        self._add(layer, {'polygon_tokens': [token]} if layer == 'drivable_area' else {'polygon_token': token})

    def add_line(self, layer: str, points: np.ndarray) -> None:
        """Append a line (n, 2), global metres."""
        self._add(layer, {'line_token': self._add('line', {'node_tokens': self._nodes(points)})})

    def write(self, root: Path, location: str = 'boston-seaport') -> Path:
        """Write the file to where a dataroot has it."""
        path = root / 'maps' / 'expansion' / f'{location}.json'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.content))
        return path

    def _nodes(self, points: np.ndarray) -> list[str]:
        return [self._add('node', {'x': x, 'y': y}) for x, y in np.asarray(points, dtype=float).tolist()]

    def _add(self, layer: str, record: dict) -> str:
        token = f'{layer} {len(self.content[layer])}'
        self.content[layer].append({'token': token, **record})
        return token
