"""The true map around a vehicle: boxes and map expansion to one label for each class and cell."""

from dataclasses import dataclass

import numpy as np

from .expansion import MapExpansion
from .plane import from_global, plane_to_global
from .protocols import IGNORED, MapProtocol
from .raster import draw_lines, fill_polygons


@dataclass(frozen=True)
class Footprints:
    """Annotated boxes seen from above.

    Attributes:
        corners: (n, 4, 3) corners of their undersides in the LiDAR frame, counter-clockwise from above, metres.
        names: (n,) detection classes.
        visibility: (n,) levels 1 to 4, 0 where unknown.
    """

    corners: np.ndarray
    names: np.ndarray
    visibility: np.ndarray

    @classmethod
    def of_boxes(cls, boxes: np.ndarray, names: np.ndarray, visibility: np.ndarray) -> 'Footprints':
        """Make footprints of boxes (n, 7): x, y, z of the centre, length, width, height, yaw in the LiDAR frame."""
        boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 7)
        along = boxes[:, 3:4] / 2 * np.array([1.0, 1.0, -1.0, -1.0])
        across = boxes[:, 4:5] / 2 * np.array([-1.0, 1.0, 1.0, -1.0])
        cos, sin = np.cos(boxes[:, 6:]), np.sin(boxes[:, 6:])
        x, y = boxes[:, :1] + along * cos - across * sin, boxes[:, 1:2] + along * sin + across * cos
        z = np.broadcast_to(boxes[:, 2:3] - boxes[:, 5:6] / 2, x.shape)
        return cls(np.stack([x, y, z], axis=-1), np.asarray(names), np.asarray(visibility))


def map_labels(
    protocol: MapProtocol,
    expansion: MapExpansion | None,
    footprints: Footprints,
    ego2global: np.ndarray,
    lidar2ego: np.ndarray,
) -> np.ndarray:
    """Make the true map of a keyframe.

    Args:
        protocol: what is drawn, and where.
        expansion: map of the location; None if the protocol needs none of its layers.
        footprints: all annotated boxes of the keyframe.
        ego2global: (4, 4), the vehicle's pose at the timestamp of the LiDAR.
        lidar2ego: (4, 4), the LiDAR's mount.

    Returns:
        (classes, bev_h, bev_w) uint8 of 0, 1 and ``IGNORED``, row 0 at the rear, column 0 at the left.
    """
    grid = protocol.grid
    plane = plane_to_global(protocol.frame, ego2global, lidar2ego)
    labels = np.zeros((len(protocol.classes), grid.bev_h, grid.bev_w), dtype=np.uint8)
    bounds = _bounds(protocol, plane)
    lidar2global = ego2global @ lidar2ego
    corners = footprints.corners @ lidar2global[:3, :3].T + lidar2global[:3, 3]
    boxes = from_global(corners[..., :2], plane)
    width = protocol.line_cells * grid.cell_x
    for channel, one in zip(labels, protocol.classes, strict=True):
        if one.boxes:
            belongs = np.isin(footprints.names, one.boxes)
            counts = footprints.visibility >= protocol.least_visibility
            if protocol.least_visibility > 1:
                channel[fill_polygons(list(boxes[belongs & ~counts]), grid)] = IGNORED
                belongs &= counts
            channel[fill_polygons(list(boxes[belongs]), grid)] = 1
        if expansion is not None and one.areas:
            rings = [from_global(ring, plane) for ring in expansion.shapes(one.areas, bounds)]
            channel[fill_polygons(rings, grid)] = 1
        if expansion is not None and one.lines:
            lines = [from_global(line, plane) for line in expansion.shapes(one.lines, bounds)]
            channel[draw_lines(lines, width, grid)] = 1
    return labels


def _bounds(protocol: MapProtocol, plane: np.ndarray) -> tuple[float, float, float, float]:
    """Return the part of the global frame that the grid covers, with a margin for the width of lines."""
    x_min, y_min, _, x_max, y_max, _ = protocol.grid.point_cloud_range
    corners = np.array([[x_min, y_min], [x_max, y_min], [x_max, y_max], [x_min, y_max]])
    there = corners @ plane[:, :2].T + plane[:, 2]
    margin = protocol.line_cells * max(protocol.grid.cell_x, protocol.grid.cell_y)
    low, high = there.min(axis=0) - margin, there.max(axis=0) + margin
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])
