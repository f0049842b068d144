"""Convex solids with painted faces, and models made of several of them that can be drawn back to front.

A model's local frame is that of its box: x forward, y left, z up, metres, origin on the ground under the centre.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from bevformer_plugin.errors import InputError

MAX_CORNERS = 8
FACES = ('front', 'rear', 'left', 'right', 'top', 'bottom')


@dataclasses.dataclass(frozen=True)
class Polygon:
    """A convex polygon: corners (k, 3) counter-clockwise from outside, BGR colour, and whether light shades it."""

    corners: np.ndarray
    colour: tuple[float, float, float]
    shaded: bool = True


class Solid:
    """A frustum: a rectangle at the bottom, another at the top, six faces that can be painted.

    Args:
        low, high: corners (3,) of the bounding box in metres; ``low[2]`` and ``high[2]`` are bottom and top.
        colour: BGR, 0 to 255.
        top: rectangle (x0, x1, y0, y1) of the upper face, by default the same as the lower one.
        bottom: rectangle (x0, x1, y0, y1) of the lower face, by default the bounding box.
    """

    def __init__(self, low, high, colour, top=None, bottom=None):
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
        self.colours = dict.fromkeys(FACES, tuple(colour))
        self.decals = []

    def paint(self, colour, *faces) -> Solid:
        """Give whole faces another colour."""
        self.colours.update(dict.fromkeys(faces, tuple(colour)))
        return self

    def decal(self, face, u0, u1, v0, v1, colour, shaded=True) -> Solid:
        """Paint a rectangle of a face; u runs to the right and v upwards as seen from outside, both 0 to 1."""
        corners = self._on_face(face, np.array([u0, u1, u1, u0]), np.array([v0, v0, v1, v1]))
        self.decals.append(Polygon(corners, tuple(colour), shaded))
        return self

    def side_decal(self, f0, f1, v0, v1, colour) -> Solid:
        """Paint the same rectangle on both long sides; f runs from the rear (0) to the front (1)."""
        return self.decal('right', f0, f1, v0, v1, colour).decal('left', 1 - f1, 1 - f0, v0, v1, colour)

    def stripe(self, face, u0, u1, lean, v0, v1, colour) -> Solid:
        """Paint a slanted stripe: a rectangle whose upper edge is moved by ``lean`` in u."""
        corners = self._on_face(face, np.array([u0, u1, u1 + lean, u0 + lean]), np.array([v0, v0, v1, v1]))
        self.decals.append(Polygon(corners, tuple(colour)))
        return self

    def wheels(self, x, radius, colour=(38, 36, 36), hub=(130, 130, 130)) -> Solid:
        """Paint a wheel that stands on the ground at ``x`` metres on both long sides."""
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
        """The six faces, then the decals in the order they were painted."""
        return [Polygon(self.faces[name], self.colours[name]) for name in FACES] + self.decals

    def _on_face(self, face, u, v):
        bottom_left, bottom_right, top_right, top_left = self.faces[face]
        u, v = u[:, None], v[:, None]
        return (
            (1 - u) * (1 - v) * bottom_left + u * (1 - v) * bottom_right + u * v * top_right + (1 - u) * v * top_left
        )


class Disc:
    """An upright octagonal disc in the x-z plane: the wheel of a two-wheeler."""

    def __init__(self, x, radius, thickness, tyre, hub):
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
        self.thickness, self.tyre, self.hub = thickness, tuple(tyre), tuple(hub)

    def polygons(self) -> list[Polygon]:
        """Both sides with their hubs, then the tread."""
        offset = np.array([0.0, self.thickness / 2, 0.0])
        result = []
        for scale, colour in ((1.0, self.tyre), (0.62, self.hub)):
            ring = self._rings[scale]
            result += [Polygon(ring - offset, colour), Polygon((ring + offset)[::-1], colour)]
        outer = self._rings[1.0]
        for start, end in zip(outer, np.roll(outer, -1, axis=0), strict=True):
            result.append(Polygon(np.stack([start + offset, end + offset, end - offset, start - offset]), self.tyre))
        return result


class Model:
    """Several solids as arrays, with a tree of separating planes that gives their exact drawing order.

    Attributes:
        corners: (P, 8, 3) polygon corners, the last one repeated where a polygon has fewer.
        normals: (P, 3) outward unit normals; centres: (P, 3).
        colours: (P, 3) BGR 0 to 255; shaded: (P,) bool.
        parts: (n, 2) first and last + 1 polygon of each solid; boxes: (n, 2, 3) their bounding boxes.
    """

    def __init__(self, solids):
        polygons = [solid.polygons() for solid in solids]
        flat = [polygon for group in polygons for polygon in group]
        self.corners = np.stack([_padded(polygon.corners) for polygon in flat])
        self.normals = np.stack([_normal(polygon.corners) for polygon in flat])
        self.centres = np.stack([polygon.corners.mean(axis=0) for polygon in flat])
        self.colours = np.array([polygon.colour for polygon in flat], dtype=float)
        self.shaded = np.array([polygon.shaded for polygon in flat])
        ends = np.cumsum([len(group) for group in polygons])
        self.parts = np.stack([ends - [len(group) for group in polygons], ends], axis=1)
        self.boxes = np.stack([np.stack([solid.low, solid.high]) for solid in solids])
        self._tree = _separate(self.boxes, list(range(len(solids))))

    def drawing_order(self, eye) -> list[int]:
        """Indices of the solids, back to front, for an eye at local position (3,)."""
        order = []
        pending = [self._tree]
        while pending:
            node = pending.pop()
            if isinstance(node, int):
                order.append(node)
            else:
                axis, plane, below, above = node
                pending += [above, below] if eye[axis] > plane else [below, above]
        return order


def _padded(corners):
    return np.concatenate([corners, np.repeat(corners[-1:], MAX_CORNERS - len(corners), axis=0)])


def _normal(corners):
    normal = np.cross(corners, np.roll(corners, -1, axis=0)).sum(axis=0)
    return normal / np.linalg.norm(normal)


def _separate(boxes, members):
    """Split the members by axis-aligned planes that cut none of them, until each is alone."""
    if len(members) == 1:
        return members[0]
    for axis in range(3):
        for candidate in members:
            plane = boxes[candidate, 1, axis]
            below = [m for m in members if boxes[m, 1, axis] <= plane + 1e-9]
            above = [m for m in members if boxes[m, 0, axis] >= plane - 1e-9]
            if above and below and len(below) + len(above) == len(members):
                return axis, plane, _separate(boxes, below), _separate(boxes, above)
    raise InputError(f'no plane separates the solids with boxes {boxes[members].tolist()}')
