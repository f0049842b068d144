"""Maps in bird's-eye view: what their true labels are, by one of several named protocols.

Read :mod:`.protocols` (grid, frame, classes and rules of each), :mod:`.expansion` (nuScenes' maps), :mod:`.plane`
(frames), :mod:`.raster` (shapes to cells) and :mod:`.labels` (the true map of a keyframe).
"""

from .expansion import MapExpansion, read_expansion
from .labels import Footprints, map_labels
from .plane import between_planes, from_global, plane_to_global
from .protocols import IGNORED, PROTOCOLS, MapClass, MapProtocol, find_protocol
from .raster import draw_lines, fill_polygons, oriented

__all__ = [
    'IGNORED',
    'PROTOCOLS',
    'Footprints',
    'MapClass',
    'MapExpansion',
    'MapProtocol',
    'between_planes',
    'draw_lines',
    'fill_polygons',
    'find_protocol',
    'from_global',
    'map_labels',
    'oriented',
    'plane_to_global',
    'read_expansion',
]
