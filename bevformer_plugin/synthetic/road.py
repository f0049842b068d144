"""The street of one scene: a smooth centre line with lanes, parking strips, sidewalks and side streets beside it."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import ArrayLike

from bevformer_plugin.errors import InputError

LANE, BIKE_LANE, PARKING, SIDEWALK, YARD = 3.5, 1.7, 3.2, 3.0, 7.5  # widths in metres
STEP = 0.5  # metres between two values of the curvature
SIDE_STREET_HALF_WIDTH = 4.0  # metres
SIDE_STREET_SIDEWALK = 2.5  # metres, width


@dataclasses.dataclass(frozen=True)
class Zebra:
    """How a zebra crossing lies across the road, in metres.

    Attributes:
        gap: from the edge of the side street to the crossing.
        length: along the road.
        inset: from the kerb to the first and the last bar.
    """

    gap: float
    length: float
    inset: float


ZEBRA = Zebra(gap=0.6, length=3.0, inset=0.4)


@dataclasses.dataclass(frozen=True)
class CrossSection:
    """Where the strips of a street end: distances from the centre line in metres, the same on both sides.

    Attributes:
        lanes: in each direction.
    """

    lanes: int

    @property
    def lane_edge(self) -> float:
        """The distance at which the lanes end and the bicycle lane begins."""
        return self.lanes * LANE

    @property
    def bike_edge(self) -> float:
        """The distance at which the bicycle lane ends and the parking strip begins."""
        return self.lane_edge + BIKE_LANE

    @property
    def kerb(self) -> float:
        """The distance at which the parking strip ends and the sidewalk begins."""
        return self.bike_edge + PARKING

    @property
    def sidewalk_edge(self) -> float:
        """The distance at which the sidewalk ends and the yards begin."""
        return self.kerb + SIDEWALK

    @property
    def yard_edge(self) -> float:
        """The distance at which the yards end."""
        return self.sidewalk_edge + YARD


class Road:
    """A centre line given by its curvature, extended by straight lines at both ends.

    Args:
        start: arc length in metres where the description begins; 0 is where the ego vehicle starts.
        curvature: (n,) 1/m, one value per ``STEP`` metres.
        heading: of the first point, radians in the global frame.
        lanes: lanes in each direction.
        side_streets: arc lengths in metres at which a street crosses.
    """

    def __init__(
        self, start: float, curvature: np.ndarray, heading: float, lanes: int, side_streets: list[float]
    ) -> None:
        self.arc = start + STEP * np.arange(len(curvature) + 1)
        self.heading = heading + np.concatenate([[0.0], np.cumsum(curvature) * STEP])
        middle = 0.5 * (self.heading[1:] + self.heading[:-1])
        steps = STEP * np.stack([np.cos(middle), np.sin(middle)], axis=1)
        self.line = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
        self.section = CrossSection(lanes)
        self.side_streets = tuple(side_streets)

    def move(self, offset: np.ndarray) -> None:
        """Shift the whole road by (2,) metres."""
        self.line = self.line + offset

    def poses(self, arc: ArrayLike, offset: ArrayLike) -> np.ndarray:
        """Return the poses (n, 3) of x, y and yaw at arc lengths (n,) and lateral offsets (n,), left positive."""
        arc, offset = np.broadcast_arrays(np.asarray(arc, dtype=float), np.asarray(offset, dtype=float))
        heading = np.interp(arc, self.arc, self.heading)
        x, y = (np.interp(arc, self.arc, self.line[:, k]) for k in (0, 1))
        beyond = arc - np.clip(arc, self.arc[0], self.arc[-1])
        x = x + beyond * np.cos(heading) - offset * np.sin(heading)
        y = y + beyond * np.sin(heading) + offset * np.cos(heading)
        return np.stack([x, y, heading], axis=-1)

    def stretch(self, arc: np.ndarray, offset: float) -> np.ndarray:
        """Return the metres driven at a lateral offset per metre of the centre line.

        They are less than 1 on the inside of a bend.
        """
        curvature = np.interp(arc, 0.5 * (self.arc[1:] + self.arc[:-1]), np.diff(self.heading) / STEP, 0.0, 0.0)
        return 1 - curvature * offset

    def strip(self, arc0: float, arc1: float, offset0: float, offset1: float) -> np.ndarray:
        """Return the outline (n, 2) of the part of the street between two arc lengths and two lateral offsets."""
        arc = np.linspace(arc0, arc1, max(2, int((arc1 - arc0) / 1.5) + 1))
        near, far = self.poses(arc, offset0)[:, :2], self.poses(arc, offset1)[:, :2]
        return np.concatenate([near, far[::-1]])

    def near_side_street(self, arc: float, margin: float) -> bool:
        """Return whether a point at ``arc`` lies within ``margin`` metres of the carriageway of a side street."""
        return any(abs(arc - street) < SIDE_STREET_HALF_WIDTH + margin for street in self.side_streets)


def sample_road(kind: str, distance: float, rng: np.random.Generator) -> Road:
    """Draw a road on which the ego vehicle drives ``distance`` metres from arc length 0.

    Args:
        kind: 'straight', 'curve' (wide bends) or 'turn' (one tight bend of 60 to 95 degrees).
        distance: metres.
        rng: source of every choice.

    Raises:
        InputError: there is no such kind of road.
    """
    margin = 130.0
    count = int((distance + 2 * margin) / STEP)
    arc = -margin + STEP * np.arange(count)
    curvature = np.zeros(count)
    if kind == 'turn':
        radius, angle = rng.uniform(30, 42), np.deg2rad(rng.uniform(60, 95))
        begin = rng.uniform(0.1, 0.5) * distance
        curvature[(arc >= begin) & (arc < begin + radius * angle)] = rng.choice([-1, 1]) / radius
    elif kind == 'curve':
        position = rng.uniform(-60, 0)
        while position < distance + 60:
            length = rng.uniform(35, 70)
            curvature[(arc >= position) & (arc < position + length)] = rng.choice([-1, 1]) / rng.uniform(70, 200)
            position += length + rng.uniform(5, 25)
    elif kind != 'straight':
        raise InputError(f'no road of kind {kind!r}; known: straight, curve, turn')
    window = np.hanning(25)
    curvature = np.convolve(curvature, window / window.sum(), mode='same')
    streets: list[float] = []
    position = rng.uniform(-50, 10)
    while position < distance + 90:
        if np.abs(curvature[np.abs(arc - position) < 15]).max(initial=0.0) < 0.004:
            streets.append(position)
        position += rng.uniform(45, 90)
    return Road(-margin, curvature, rng.uniform(-np.pi, np.pi), int(rng.integers(1, 3)), streets)
