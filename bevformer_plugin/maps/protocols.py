"""The protocols by which maps in bird's-eye view are labelled and scored; numbers of two protocols do not compare.

Every protocol here is our reading of a public source and departs from it where the source contradicts itself or is
silent; ``projects/map_segmentation/README.md`` has the table. Two departures are common to all: a cell counts if its
centre lies in a shape, see :mod:`.raster`, and every class of a protocol is in one frame.
"""

from dataclasses import dataclass

from bevformer_plugin.errors import InputError
from bevformer_plugin.geometry import BEVGrid

CAR = ('car',)
# All detection classes of nuScenes' categories "vehicle.*"; vehicles of emergency services have no class.
VEHICLES = ('car', 'truck', 'construction_vehicle', 'bus', 'trailer', 'motorcycle', 'bicycle')
DIVIDERS = ('road_divider', 'lane_divider')
FRAMES = ('lidar', 'ego', 'flat_ego')
IGNORED = 255  # label of cells that neither the loss nor the score counts
THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))  # at which every protocol is scored


@dataclass(frozen=True)
class MapClass:
    """One channel of a map: the union of boxes, polygons and lines.

    Attributes:
        name: of the channel.
        boxes: detection classes whose boxes, seen from above, belong to it.
        areas: polygon layers of the map expansion that belong to it.
        lines: line layers of the map expansion that belong to it.
    """

    name: str
    boxes: tuple[str, ...] = ()
    areas: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class MapProtocol:
    """What is a map's truth, and how predictions are scored against it.

    Attributes:
        name: which every score carries.
        grid: cells and extent in metres; rows grow forward, columns to the right. Its z range has no meaning.
        frame: whose origin and axes the grid has: 'lidar' and 'ego' at the timestamp of the LiDAR, tilted as the
            sensor or the vehicle is, or 'flat_ego', the vehicle's position and heading only.
        classes: channels in order.
        line_cells: width of lines in cells.
        least_visibility: boxes below this level of visibility (1 to 4) make their cells ``IGNORED``; 1 counts all.
        threshold: probability above which the source of the protocol counts a cell; None takes for each class the
            best of 0.35 to 0.65 on the evaluated data.
    """

    name: str
    grid: BEVGrid
    frame: str
    classes: tuple[MapClass, ...]
    line_cells: float = 1.0
    least_visibility: int = 1
    threshold: float | None = 0.5

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the channels in order."""
        return tuple(one.name for one in self.classes)

    @property
    def areas(self) -> tuple[str, ...]:
        """All polygon layers of the map expansion that the protocol needs, sorted."""
        return tuple(sorted({layer for one in self.classes for layer in one.areas}))

    @property
    def lines(self) -> tuple[str, ...]:
        """All line layers of the map expansion that the protocol needs, sorted."""
        return tuple(sorted({layer for one in self.classes for layer in one.lines}))

    @property
    def thresholds(self) -> tuple[float, ...]:
        """All probabilities at which predictions are scored, sorted."""
        return tuple(sorted({*THRESHOLDS, *(() if self.threshold is None else (self.threshold,))}))


def _square(metres: float) -> BEVGrid:
    """Make a grid of 200 x 200 cells that reaches so far to each side."""
    return BEVGrid(200, 200, (-metres, -metres, -5.0, metres, metres, 3.0))


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        MapProtocol(
            'paper',
            _square(51.2),
            'lidar',
            (
                MapClass('car', boxes=CAR),
                MapClass('vehicles', boxes=VEHICLES),
                MapClass('drivable_area', areas=('drivable_area',)),
                MapClass('lane_boundary', lines=DIVIDERS),
            ),
        ),
        MapProtocol(
            'lss',
            _square(50.0),
            'ego',
            (
                MapClass('car', boxes=CAR),
                MapClass('vehicles', boxes=VEHICLES),
                MapClass('drivable_area', areas=('drivable_area',)),
                MapClass('lane_boundary', lines=DIVIDERS),
            ),
        ),
        MapProtocol(
            'cvt',
            _square(50.0),
            'flat_ego',
            (MapClass('vehicles', boxes=VEHICLES), MapClass('road', areas=('lane', 'road_segment'))),
            least_visibility=2,
        ),
        MapProtocol(
            'petrv2',
            _square(51.2),
            'lidar',
            (
                MapClass('drivable_area', areas=('drivable_area',)),
                MapClass('lane_boundary', lines=DIVIDERS),
                MapClass('vehicles', boxes=VEHICLES),
            ),
            line_cells=2.0,
            threshold=0.43,
        ),
        MapProtocol(
            'bevfusion',
            _square(50.0),
            'lidar',
            (
                MapClass('drivable_area', areas=('drivable_area',)),
                MapClass('ped_crossing', areas=('ped_crossing',)),
                MapClass('walkway', areas=('walkway',)),
                MapClass('stop_line', areas=('stop_line',)),
                MapClass('carpark_area', areas=('carpark_area',)),
                MapClass('divider', lines=DIVIDERS),
            ),
            threshold=None,
        ),
    )
}


def find_protocol(name: object) -> MapProtocol:
    """Return the protocol of a name.

    Raises:
        InputError: there is none; the message lists the names.
    """
    if not isinstance(name, str) or name not in PROTOCOLS:
        raise InputError(f'no map protocol {name!r}: choose one of {", ".join(PROTOCOLS)}')
    return PROTOCOLS[name]
