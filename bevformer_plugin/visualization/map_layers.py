"""The map under the boxes of the bird's-eye view: the true one as areas, the predicted one as their outlines."""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.transforms import Affine2D

from bevformer_plugin.evaluation import HEADLINE
from bevformer_plugin.geometry import BEVGrid
from bevformer_plugin.maps import MapProtocol

from .palette import MAP_COLORS

TRUTH_ALPHA = 0.4


@dataclass(frozen=True)
class MapLayers:
    """True and predicted map of a keyframe.

    Attributes:
        protocol: by which both were made.
        truth: (classes, rows, columns) uint8 of 0, 1 and ``IGNORED``.
        prediction: (classes, rows, columns) probabilities; None without predictions.
        to_lidar: (2, 3), how the plane of the protocol's frame lies in the LiDAR frame, see :func:`between_planes`.
    """

    protocol: MapProtocol
    truth: np.ndarray
    prediction: np.ndarray | None
    to_lidar: np.ndarray

    def drawn(self) -> list[tuple[str, str, np.ndarray, np.ndarray | None]]:
        """List name, colour, truth and prediction of the classes that are drawn, largest areas first.

        Classes of boxes only are left out, since boxes are drawn above the map.
        """
        channels = {name: index for index, name in enumerate(self.protocol.class_names)}
        shown = [one.name for one in self.protocol.classes if one.areas or one.lines]
        order = [name for name in MAP_COLORS if name in shown]
        return [
            (
                name,
                MAP_COLORS[name],
                self.truth[channels[name]] == 1,
                None if self.prediction is None else self.prediction[channels[name]],
            )
            for name in order
        ]


def draw_map(axes: Axes, layers: MapLayers) -> None:
    """Draw a map into axes in the LiDAR frame, below everything else."""
    grid = layers.protocol.grid
    x_min, y_min, _, x_max, y_max, _ = grid.point_cloud_range
    placed = Affine2D(np.vstack([layers.to_lidar, [0, 0, 1]]))
    centres = _centres(grid) @ layers.to_lidar[:, :2].T + layers.to_lidar[:, 2]
    limits = axes.get_xlim(), axes.get_ylim()
    for level, (_, color, truth, prediction) in enumerate(layers.drawn()):
        picture = np.zeros((*truth.shape, 4))
        picture[truth] = to_rgba(color, TRUTH_ALPHA)
        axes.imshow(
            picture,
            extent=(x_min, x_max, y_min, y_max),
            origin='lower',
            interpolation='nearest',
            transform=placed + axes.transData,
            zorder=0.2 + 0.01 * level,
        )
        if prediction is not None:
            above = prediction > HEADLINE
            if above.any() and not above.all():
                x, y = np.moveaxis(centres, -1, 0)
                axes.contour(x, y, prediction, [HEADLINE], colors=[color], linewidths=1.3, zorder=1.8)
    axes.set(xlim=limits[0], ylim=limits[1])


def _centres(grid: BEVGrid) -> np.ndarray:
    """Return the centres of all cells, (rows, columns, 2) in metres."""
    x_min, y_min = grid.point_cloud_range[:2]
    x = x_min + (np.arange(grid.bev_w) + 0.5) * grid.cell_x
    y = y_min + (np.arange(grid.bev_h) + 0.5) * grid.cell_y
    return np.stack(np.meshgrid(x, y), axis=-1)
