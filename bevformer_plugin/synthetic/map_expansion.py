"""The map expansion of a synthetic world, version 1.3 of nuScenes: what :mod:`.ground` paints, as polygons and lines.

The devkit knows four locations by name, so the scenes of a world share these, each at a place of its own: tables and
maps of a scene are shifted by its :class:`Place`, while pictures and point clouds do not depend on it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from bevformer_plugin.synthetic.ground import side_street
from bevformer_plugin.synthetic.road import SIDE_STREET_HALF_WIDTH, SIDE_STREET_SIDEWALK, ZEBRA, Road
from bevformer_plugin.synthetic.scenario import Scenario
from bevformer_plugin.synthetic.tokens import token

LOCATIONS = ('boston-seaport', 'singapore-onenorth', 'singapore-queenstown', 'singapore-hollandvillage')
EMPTY_LAYERS = ('road_block', 'stop_line', 'traffic_light', 'lane_connector')
SMALLEST_AREA, SHORTEST_LINE = 0.5, 0.5  # square metres and metres; less is left by clipping only


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a scene lies.

    Attributes:
        location: one of ``LOCATIONS``.
        corner: (x, y) of the lower left corner of the scene's map in the location's frame, whole metres.
    """

    location: str
    corner: tuple[int, int]


def place_scenes(map_sizes: Sequence[tuple[float, float]]) -> list[Place]:
    """Give each scene a place: scenes take turns at the locations, and those of a location lie in rows.

    Args:
        map_sizes: (width, height) of the scenes' maps in metres, in the order of the world.
    """
    width, height = (math.ceil(max(size[k] for size in map_sizes)) for k in (0, 1))
    columns = math.ceil(math.sqrt(math.ceil(len(map_sizes) / len(LOCATIONS))))
    places: list[Place] = []
    for index in range(len(map_sizes)):
        turn, of_location = divmod(index, len(LOCATIONS))
        row, column = divmod(turn, columns)
        places.append(Place(LOCATIONS[of_location], (column * width, row * height)))
    return places


def canvas_size(places: Sequence[Place], map_sizes: Sequence[tuple[float, float]], location: str) -> tuple[int, int]:
    """Return width and height of a location's map in whole metres."""
    reach = [
        [math.ceil(start + length) for start, length in zip(place.corner, size, strict=True)]
        for place, size in zip(places, map_sizes, strict=True)
        if place.location == location
    ]
    width, height = np.max(reach, axis=0).tolist()
    return width, height


class ExpansionWriter:
    """Collects the records of one location scene by scene.

    Args:
        seed: part of every token.
        location: one of ``LOCATIONS``.
        canvas_edge: width and height of the map in metres.
    """

    def __init__(self, seed: int, location: str, canvas_edge: tuple[int, int]) -> None:
        self._names = (seed, 'map expansion', location)
        self._nodes: dict[tuple[float, float], str] = {}
        self.content: dict = {
            'version': '1.3',
            'canvas_edge': list(canvas_edge),
            'arcline_path_3': {},
            'connectivity': {},
            **{name: [] for name in (*EMPTY_LAYERS, 'polygon', 'line', 'node', 'drivable_area', 'road_segment')},
            **{name: [] for name in ('lane', 'ped_crossing', 'walkway', 'carpark_area')},
            **{name: [] for name in ('road_divider', 'lane_divider')},
        }

    def add_scene(self, scenario: Scenario, corner: tuple[int, int]) -> None:
        """Append the map of a scene.

        Args:
            scenario: the scene.
            corner: of its place.
        """
        shapes = _Shapes(scenario, corner)
        drivable = self._add('drivable_area', polygon_tokens=[self._polygon(area) for area in shapes.drivable_areas()])
        segments = [
            self._add(
                'road_segment',
                polygon_token=self._polygon(area),
                is_intersection=is_intersection,
                drivable_area_token=drivable,
            )
            for area, is_intersection in shapes.road_segments()
        ]
        for area, first_edge, last_edge in shapes.lanes():
            self._add(
                'lane',
                polygon_token=self._polygon(area),
                lane_type='CAR',
                from_edge_line_token=self._line(first_edge),
                to_edge_line_token=self._line(last_edge),
                left_lane_divider_segments=[],
                right_lane_divider_segments=[],
            )
        for area in shapes.crossings():
            self._add('ped_crossing', polygon_token=self._polygon(area), road_segment_token=segments[0])
        for area in shapes.walkways():
            self._add('walkway', polygon_token=self._polygon(area))
        for area in shapes.car_parks():
            self._add('carpark_area', polygon_token=self._polygon(area), orientation=0.0, road_block_token='')
        for line in shapes.road_dividers():
            self._add('road_divider', line_token=self._line(line), road_segment_token=None)
        for line, kind in shapes.lane_dividers():
            nodes = self._nodes_of(np.asarray(line.coords))
            self._add(
                'lane_divider',
                line_token=self._line(line),
                lane_divider_segments=[{'node_token': node, 'segment_type': kind} for node in nodes],
            )

    def _add(self, layer: str, **fields: object) -> str:
        """Append a record with a token of its own, which is returned."""
        key = token(*self._names, layer, len(self.content[layer]))
        self.content[layer].append({'token': key, **fields})
        return key

    def _polygon(self, polygon: shapely.Polygon) -> str:
        """Append a polygon, of whose rings the first point is not repeated, and return its token."""
        return self._add(
            'polygon',
            exterior_node_tokens=self._nodes_of(np.asarray(polygon.exterior.coords)[:-1]),
            holes=[{'node_tokens': self._nodes_of(np.asarray(ring.coords)[:-1])} for ring in polygon.interiors],
        )

    def _line(self, line: shapely.LineString) -> str:
        return self._add('line', node_tokens=self._nodes_of(np.asarray(line.coords)))

    def _nodes_of(self, points: np.ndarray) -> list[str]:
        """Return the tokens of points (n, 2), which become nodes the first time they are asked for."""
        tokens: list[str] = []
        for x, y in points.round(4).tolist():
            if (x, y) not in self._nodes:
                self._nodes[x, y] = self._add('node', x=x, y=y)
            tokens.append(self._nodes[x, y])
        return tokens


class _Shapes:
    """The shapes of a scene's map, cut at the edge of what is painted and shifted to the scene's place.

    Args:
        scenario: the scene.
        corner: of its place.
    """

    def __init__(self, scenario: Scenario, corner: tuple[int, int]) -> None:
        self.road: Road = scenario.road
        self.corner = corner
        self.painted = shapely.box(0, 0, *scenario.map_size)
        self.first, self.last = float(self.road.arc[0]), float(self.road.arc[-1])
        crossing = sorted(self.road.side_streets)
        half = SIDE_STREET_HALF_WIDTH
        self.stretches = list(
            zip([self.first, *[s + half for s in crossing]], [*[s - half for s in crossing], self.last], strict=True)
        )
        self.streets = crossing

    def drivable_areas(self) -> Iterator[shapely.Polygon]:
        """Yield the asphalt with everything that is painted on it."""
        yield from self._areas(self._asphalt())

    def road_segments(self) -> Iterator[tuple[shapely.Polygon, bool]]:
        """Yield the parts of the road without car parks, each with whether it is an intersection."""
        kerb, edge = self.road.section.kerb, self.road.section.bike_edge
        for begin, end in self.stretches:
            for area in self._areas(self._strip(begin, end, -edge, edge)):
                yield area, False
        main = self._strip(self.first, self.last, -kerb, kerb)
        for street in self.streets:
            here = self._strip(street - SIDE_STREET_HALF_WIDTH, street + SIDE_STREET_HALF_WIDTH, -kerb, kerb)
            for area in self._areas(here):
                yield area, True
            for area in self._areas(self._street(street, SIDE_STREET_HALF_WIDTH) - main):
                yield area, False

    def lanes(self) -> Iterator[tuple[shapely.Polygon, shapely.LineString, shapely.LineString]]:
        """Yield each lane between two side streets, with the edges where traffic enters and leaves it."""
        section = self.road.section
        width = section.lane_edge / section.lanes
        for begin, end in self.stretches:
            for lane in range(-section.lanes, section.lanes):
                low, high = lane * width, (lane + 1) * width
                for area in self._areas(self._strip(begin, end, low, high)):
                    edges = [self._across(arc, low, high) for arc in (begin, end)]
                    first, last = edges if lane < 0 else edges[::-1]
                    yield area, first, last

    def crossings(self) -> Iterator[shapely.Polygon]:
        """Yield the zebra crossings."""
        kerb = self.road.section.kerb
        for street in self.streets:
            for sign in (-1, 1):
                near = street + sign * (SIDE_STREET_HALF_WIDTH + ZEBRA.gap)
                far = near + sign * ZEBRA.length
                yield from self._areas(
                    self._strip(min(near, far), max(near, far), -kerb + ZEBRA.inset, kerb - ZEBRA.inset)
                )

    def walkways(self) -> Iterator[shapely.Polygon]:
        """Yield the sidewalks of the road and of its side streets."""
        edge = self.road.section.sidewalk_edge
        paved = [self._strip(self.first, self.last, -edge, edge)]
        paved += [self._street(street, SIDE_STREET_HALF_WIDTH + SIDE_STREET_SIDEWALK) for street in self.streets]
        yield from self._areas(shapely.union_all(paved) - self._asphalt())

    def car_parks(self) -> Iterator[shapely.Polygon]:
        """Yield the parking strips."""
        section = self.road.section
        for side in (-1, 1):
            yield from self._areas(self._strip(self.first, self.last, side * section.bike_edge, side * section.kerb))

    def road_dividers(self) -> Iterator[shapely.LineString]:
        """Yield the centre lines."""
        for begin, end in self.stretches:
            yield from self._lines(begin, end, 0.0)

    def lane_dividers(self) -> Iterator[tuple[shapely.LineString, str]]:
        """Yield the painted lines beside lanes, each with its type of nuScenes."""
        section = self.road.section
        width = section.lane_edge / section.lanes
        offsets = {k * width: 'DOUBLE_DASHED_WHITE' for k in range(1, section.lanes)}
        offsets |= {section.lane_edge: 'SINGLE_SOLID_WHITE', section.bike_edge: 'SINGLE_SOLID_WHITE'}
        for begin, end in self.stretches:
            for offset, kind in offsets.items():
                for side in (-1, 1):
                    for line in self._lines(begin, end, side * offset):
                        yield line, kind

    def _asphalt(self) -> BaseGeometry:
        kerb = self.road.section.kerb
        parts = [self._strip(self.first, self.last, -kerb, kerb)]
        return shapely.union_all([*parts, *(self._street(s, SIDE_STREET_HALF_WIDTH) for s in self.streets)])

    def _strip(self, arc0: float, arc1: float, offset0: float, offset1: float) -> BaseGeometry:
        return shapely.make_valid(shapely.Polygon(self.road.strip(arc0, arc1, offset0, offset1)))

    def _street(self, street: float, half_width: float) -> BaseGeometry:
        return shapely.Polygon(side_street(self.road, street, half_width))

    def _across(self, arc: float, offset0: float, offset1: float) -> shapely.LineString:
        ends = self.road.poses([arc, arc], [offset0, offset1])[:, :2]
        return shapely.LineString(ends + self.corner)

    def _areas(self, area: BaseGeometry) -> Iterator[shapely.Polygon]:
        """Yield the polygons of an area within what is painted, at the scene's place."""
        for part in shapely.get_parts(area & self.painted):
            if part.geom_type == 'Polygon' and part.area > SMALLEST_AREA:
                yield shapely.transform(part, lambda points: points + self.corner)

    def _lines(self, arc0: float, arc1: float, offset: float) -> Iterator[shapely.LineString]:
        """Yield the parts of the line at a lateral offset within what is painted, at the scene's place."""
        arcs = np.linspace(arc0, arc1, max(2, int((arc1 - arc0) / 1.5) + 1))
        line = shapely.LineString(self.road.poses(arcs, offset)[:, :2])
        for part in shapely.get_parts(line & self.painted):
            if part.geom_type == 'LineString' and part.length > SHORTEST_LINE:
                yield shapely.transform(part, lambda points: points + self.corner)
