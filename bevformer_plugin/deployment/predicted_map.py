"""The map that was predicted for one frame, and where its cells lie."""

from dataclasses import dataclass

import numpy as np

from bevformer_plugin.errors import InputError
from bevformer_plugin.geometry import BEVGrid
from bevformer_plugin.maps import MapProtocol, between_planes, plane_to_global

FRAMES = ('ego', 'lidar', 'global')
# The axes of the plane of the vehicle's maps, x to the right and y forward, in those of the vehicle.
_TO_VEHICLE_AXES = np.array([[0.0, 1.0], [-1.0, 0.0]])


@dataclass(frozen=True, eq=False)
class PredictedMap:
    """How probable each class of a map is in each cell around the vehicle.

    Attributes:
        protocol: by which the model was trained.
        probabilities: (classes, rows, columns) float32 from 0 to 1; rows grow forward, columns to the right.
        lidar2ego: (4, 4) mount of the LiDAR.
        ego2global: (4, 4) pose of the vehicle, or None where it was not given.
    """

    protocol: MapProtocol
    probabilities: np.ndarray
    lidar2ego: np.ndarray
    ego2global: np.ndarray | None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the channels in order."""
        return self.protocol.class_names

    @property
    def grid(self) -> BEVGrid:
        """Cells and extent in metres."""
        return self.protocol.grid

    @property
    def frame(self) -> str:
        """Whose origin and axes the grid has: 'lidar', 'ego' or 'flat_ego', see :class:`MapProtocol`."""
        return self.protocol.frame

    def of(self, name: str) -> np.ndarray:
        """Return the probabilities (rows, columns) of a class.

        Raises:
            InputError: the map has no such class; the message lists them.
        """
        if name not in self.classes:
            raise InputError(
                f'maps by protocol {self.protocol.name!r} have no class {name!r}: choose one of '
                f'{", ".join(self.classes)}'
            )
        return self.probabilities[self.classes.index(name)]

    def cell_centers(self, frame: str = 'ego') -> np.ndarray:
        """Return where the cells lie on the ground.

        Args:
            frame: 'ego' (x forward, y left), 'lidar' (x right, y forward) or 'global'.

        Returns:
            (rows, columns, 2) x and y of their centres, metres.

        Raises:
            InputError: for an unknown frame, or 'global' without a pose.
        """
        plane = self._plane_in(frame)
        return self.grid.cell_centers() @ plane[:, :2].T + plane[:, 2]

    @property
    def to_lidar(self) -> np.ndarray:
        """Return how the map's plane lies in that of the LiDAR, (2, 3) as :func:`between_planes` gives it."""
        return self._plane_in('lidar')

    def _plane_in(self, frame: str) -> np.ndarray:
        pose = np.eye(4) if self.ego2global is None else self.ego2global
        own = plane_to_global(self.protocol.frame, pose, self.lidar2ego)
        if frame == 'lidar':
            return between_planes(own, plane_to_global('lidar', pose, self.lidar2ego))
        if frame == 'ego':
            return _TO_VEHICLE_AXES @ between_planes(own, plane_to_global('ego', pose, self.lidar2ego))
        if frame != 'global':
            raise InputError(f'unknown frame {frame!r} of a map; known are {", ".join(FRAMES)}')
        if self.ego2global is None:
            raise InputError("cells in the frame 'global' need the vehicle's pose: give step a pose")
        return own
