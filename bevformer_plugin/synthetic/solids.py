"""Convex solids with painted faces, and models made of several of them that can be drawn back to front.

A model's local frame is that of its box: x forward, y left, z up, metres, origin on the ground under the centre.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from bevformer_plugin.errors import InputError

Point = tuple[float, float, float]  # x, y, z in metres
Rectangle = tuple[float, float, float, float]  # x0, x1, y0, y1 in metres
Colour = tuple[float, float, float]  # blue, green, red, 0 to 255

MAX_CORNERS = 8
FACES = ('front', 'rear', 'left', 'right', 'top', 'bottom')


@dataclasses.dataclass(frozen=True)
class Polygon:
    """A convex polygon of one colour.

    Attributes:
        corners: (k, 3) metres, counter-clockwise as seen from outside.
        colour: of the whole polygon.
        shaded: whether the light of the scene changes the colour; lamps are not shaded.
    """

    corners: np.ndarray
    colour: Colour
    shaded: bool = True


class Solid:
    """A frustum: a rectangle at the bottom, another at the top, six faces that can be painted.

    Args:
        low, high: two opposite corners of the bounding box; ``low[2]`` and ``high[2]`` are bottom and top.
        colour: of all faces until they are painted.
        top: outline of the upper face, by default that of the bounding box.
        bottom: outline of the lower face, by default that of the bounding box.

    Raises:
        InputError: the bounding box is empty.
    """

    def __init__(
        self, low: Point, high: Point, colour: Colour, top: Rectangle | None = None, bottom: Rectangle | None = None
    ) -> None:
        (x0, y0, z0), (x1, y1, z1) = low, high
        if not (x0 < x1 and y0 < y1 and z0 < z1):
            raise InputError(f'a solid needs low < high on every axis, got low={low}, high={high}')
        a0, a1, b0, b1 = bottom or (x0, x1, y0, y1)
        c0, c1, d0, d1 = top or (x0, x1, y0, y1)
        self.low, self.high = np.array(low, dtype=float), np.array(high, dtype=float)
        rings = {
            'front': ((a1, b0, z0), (a1, b1, z0), (c1, d1, z1), (c1, d0, z1)),
            'rear': ((a0, b1, z0), (a0, b0, z0), (c0, d0, z1), (c0, d1, z1)),
            'left': ((a1, b1, z0), (a0, b1, z0), (c0, d1, z1), (c1, d1, z1)),
            'right': ((a0, b0, z0), (a1, b0, z0), (c1, d0, z1), (c0, d0, z1)),
            'top': ((c0, d0, z1), (c1, d0, z1), (c1, d1, z1), (c0, d1, z1)),
            'bottom': ((a0, b1, z0), (a1, b1, z0), (a1, b0, z0), (a0, b0, z0)),
        }
        self.faces = {name: np.array(ring, dtype=float) for name, ring in rings.items()}
        self.colours: dict[str, Colour] = dict.fromkeys(FACES, colour)
        self.decals: list[Polygon] = []

    def paint(self, colour: Colour, *faces: str) -> Solid:
        """Give whole faces another colour and return the solid."""
        self.colours.update(dict.fromkeys(faces, colour))
        return self

    def decal(
        self, face: str, u0: float, u1: float, v0: float, v1: float, colour: Colour, shaded: bool = True
    ) -> Solid:
        """Paint a rectangle of a face and return the solid.

        u runs to the right and v upwards as seen from outside, both from 0 to 1.
        """
        corners = self._on_face(face, np.array([u0, u1, u1, u0]), np.array([v0, v0, v1, v1]))
        self.decals.append(Polygon(corners, colour, shaded))
        return self

    def side_decal(self, f0: float, f1: float, v0: float, v1: float, colour: Colour) -> Solid:
        """Paint the same rectangle on both long sides and return the solid; f runs from rear (0) to front (1)."""
        return self.decal('right', f0, f1, v0, v1, colour).decal('left', 1 - f1, 1 - f0, v0, v1, colour)

    def stripe(self, face: str, u0: float, u1: float, lean: float, v0: float, v1: float, colour: Colour) -> Solid:
        """Paint a slanted stripe, a rectangle whose upper edge is moved by ``lean`` in u, and return the solid."""
        corners = self._on_face(face, np.array([u0, u1, u1 + lean, u0 + lean]), np.array([v0, v0, v1, v1]))
        self.decals.append(Polygon(corners, colour))
        return self

    def wheels(self, x: float, radius: float, colour: Colour = (38, 36, 36), hub: Colour = (130, 130, 130)) -> Solid:
        """Paint a wheel that stands on the ground at ``x`` metres on both long sides and return the solid."""
        angle = np.linspace(0, 2 * np.pi, 9)[:8] + np.pi / 8
        for side, sign in (('left', -1.0), ('right', 1.0)):
            y = self.high[1] if side == 'left' else self.low[1]
            for scale, paint in ((1.0 / np.cos(np.pi / 8), colour), (0.5, hub)):
                ring = np.stack(
                    [
                        x + sign * scale * radius * np.cos(angle),
                        np.full(8, y),
                        radius + scale * radius * np.sin(angle),
                    ],
                    axis=1,
                )
                self.decals.append(Polygon(ring, paint))
        return self

    def polygons(self) -> list[Polygon]:
        """Return the six faces, then the decals in the order in which they were painted."""
        return [Polygon(self.faces[name], self.colours[name]) for name in FACES] + self.decals

    def _on_face(self, face: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Return the points (n, 3) of a face at coordinates u and v (n,)."""
        bottom_left, bottom_right, top_right, top_left = self.faces[face]
        u, v = u[:, None], v[:, None]
        return (
            (1 - u) * (1 - v) * bottom_left + u * (1 - v) * bottom_right + u * v * top_right + (1 - u) * v * top_left
        )


class Disc:
    """An upright octagonal disc in the x-z plane, which stands on the ground: the wheel of a two-wheeler.

    Args:
        x: of its centre.
        radius, thickness: metres.
        tyre, hub: colours.
    """

    def __init__(self, x: float, radius: float, thickness: float, tyre: Colour, hub: Colour) -> None:
        self.low = np.array([x - radius, -thickness / 2, 0.0])
        self.high = np.array([x + radius, thickness / 2, 2 * radius])
        angle = np.linspace(0, 2 * np.pi, 9)[:8] + np.pi / 8
        rim = radius / np.cos(np.pi / 8)
        self._rings = {
            scale: np.stack(
                [x + scale * rim * np.cos(angle), np.zeros(8), radius + scale * rim * np.sin(angle)], axis=1
            )
            for scale in (1.0, 0.62)
        }
        self.thickness, self.tyre, self.hub = thickness, tyre, hub

    def polygons(self) -> list[Polygon]:
        """Return both sides with their hubs, then the tread."""
        offset = np.array([0.0, self.thickness / 2, 0.0])
        result: list[Polygon] = []
        for scale, colour in ((1.0, self.tyre), (0.62, self.hub)):
            ring = self._rings[scale]
            result += [Polygon(ring - offset, colour), Polygon((ring + offset)[::-1], colour)]
        outer = self._rings[1.0]
        for start, end in zip(outer, np.roll(outer, -1, axis=0), strict=True):
            result.append(Polygon(np.stack([start + offset, end + offset, end - offset, start - offset]), self.tyre))
        return result


@dataclasses.dataclass(frozen=True)
class _SeparatingPlane:
    """An axis-aligned plane between solids.

    Attributes:
        axis, position: the plane holds the points whose coordinate ``axis`` is ``position``.
        below, above: what lies on each side, the index of a solid or another plane.
    """

    axis: int
    position: float
    below: _SeparatingPlane | int
    above: _SeparatingPlane | int


class Model:
    """Several solids as arrays, with a tree of separating planes that gives their exact drawing order.

    Args:
        solids: of the object, in any order; axis-aligned planes must separate them.

    Attributes:
        corners: (P, 8, 3) polygon corners, the last one repeated where a polygon has fewer.
        normals: (P, 3) outward unit normals; centres: (P, 3).
        colours: (P, 3) BGR 0 to 255; shaded: (P,) bool.
        parts: (n, 2) first and last + 1 polygon of each solid; boxes: (n, 2, 3) their bounding boxes.
    """

    def __init__(self, solids: Sequence[Solid | Disc]) -> None:
        polygons_of_solids = [solid.polygons() for solid in solids]
        polygons = [polygon for group in polygons_of_solids for polygon in group]
        self.corners = np.stack([_padded(polygon.corners) for polygon in polygons])
        self.normals = np.stack([_normal(polygon.corners) for polygon in polygons])
        self.centres = np.stack([polygon.corners.mean(axis=0) for polygon in polygons])
        self.colours = np.array([polygon.colour for polygon in polygons], dtype=float)
        self.shaded = np.array([polygon.shaded for polygon in polygons])
        counts = [len(group) for group in polygons_of_solids]
        ends = np.cumsum(counts)
        self.parts = np.stack([ends - counts, ends], axis=1)
        self.boxes = np.stack([np.stack([solid.low, solid.high]) for solid in solids])
        self._tree = _separate(self.boxes, list(range(len(solids))))

    def drawing_order(self, eye: np.ndarray) -> list[int]:
        """Return the indices of the solids, back to front, for an eye at local position (3,)."""
        order: list[int] = []
        pending = [self._tree]
        while pending:
            node = pending.pop()
            if isinstance(node, int):
                order.append(node)
            else:
                eye_is_above = eye[node.axis] > node.position
                pending += [node.above, node.below] if eye_is_above else [node.below, node.above]
        return order


def _padded(corners: np.ndarray) -> np.ndarray:
    """Repeat the last of corners (k, 3) until there are ``MAX_CORNERS``."""
    return np.concatenate([corners, np.repeat(corners[-1:], MAX_CORNERS - len(corners), axis=0)])


def _normal(corners: np.ndarray) -> np.ndarray:
    """Return the unit normal (3,) of a polygon (k, 3)."""
    normal = np.cross(corners, np.roll(corners, -1, axis=0)).sum(axis=0)
    return normal / np.linalg.norm(normal)


def _separate(boxes: np.ndarray, members: list[int]) -> _SeparatingPlane | int:
    """Split the members by axis-aligned planes that cut none of their boxes (n, 2, 3), until each is alone.

    Raises:
        InputError: no plane separates some of them.
    """
    if len(members) == 1:
        return members[0]
    for axis in range(3):
        for candidate in members:
            position = float(boxes[candidate, 1, axis])
            below = [m for m in members if boxes[m, 1, axis] <= position + 1e-9]
            above = [m for m in members if boxes[m, 0, axis] >= position - 1e-9]
            if above and below and len(below) + len(above) == len(members):
                return _SeparatingPlane(axis, position, _separate(boxes, below), _separate(boxes, above))
    raise InputError(f'no plane separates the solids with boxes {boxes[members].tolist()}')
