"""The map under the boxes of the bird's-eye view: the true one as areas, the predicted one as their outlines.

Where nobody knows the true map, the predicted one is drawn as areas.
"""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.transforms import Affine2D

from bevformer_plugin.evaluation import HEADLINE
from bevformer_plugin.maps import MapProtocol

from .palette import MAP_COLORS

AREA_ALPHA = 0.4


@dataclass(frozen=True)
class MapLayers:
    """True and predicted map of a frame.

    Attributes:
        protocol: by which both were made.
        truth: (classes, rows, columns) uint8 of 0, 1 and ``IGNORED``; None where nobody knows it.
        prediction: (classes, rows, columns) probabilities; None without predictions.
        to_lidar: (2, 3), how the plane of the protocol's frame lies in the LiDAR frame, see :func:`between_planes`.
        with_boxes: whether classes of boxes are drawn as well, for pictures without predicted boxes above the map.
    """

    protocol: MapProtocol
    truth: np.ndarray | None
    prediction: np.ndarray | None
    to_lidar: np.ndarray
    with_boxes: bool = False

    def drawn(self) -> list['DrawnClass']:
        """List the classes that are drawn, largest areas first."""
        channels = {name: index for index, name in enumerate(self.protocol.class_names)}
        shown = [one.name for one in self.protocol.classes if self.with_boxes or one.areas or one.lines]
        predicted = None if self.prediction is None else self.prediction > HEADLINE
        areas = predicted if self.truth is None else self.truth == 1
        outlined = self.truth is not None and self.prediction is not None
        return [
            DrawnClass(
                name,
                color,
                None if areas is None else areas[channels[name]],
                self.prediction[channels[name]] if outlined and self.prediction is not None else None,
            )
            for name, color in MAP_COLORS.items()
            if name in shown
        ]

    @property
    def meaning(self) -> str:
        """What areas and outlines of the picture are."""
        predicted = f'predicted, above {HEADLINE:g}'
        if self.truth is None:
            return f'filled: {predicted}'
        return 'filled: true' + ('' if self.prediction is None else f', outline: {predicted}')


@dataclass(frozen=True)
class DrawnClass:
    """A class of a map in a picture.

    Attributes:
        name: of the class.
        color: in which it is drawn.
        area: (rows, columns) bool, the cells that are filled; None fills none.
        outlined: (rows, columns) probabilities whose outline at ``HEADLINE`` is drawn; None draws none.
    """

    name: str
    color: str
    area: np.ndarray | None
    outlined: np.ndarray | None


def draw_map(axes: Axes, layers: MapLayers) -> None:
    """Draw a map into axes in the LiDAR frame, below everything else."""
    grid = layers.protocol.grid
    x_min, y_min, _, x_max, y_max, _ = grid.point_cloud_range
    placed = Affine2D(np.vstack([layers.to_lidar, [0, 0, 1]]))
    centres = grid.cell_centers() @ layers.to_lidar[:, :2].T + layers.to_lidar[:, 2]
    limits = axes.get_xlim(), axes.get_ylim()
    for level, drawn in enumerate(layers.drawn()):
        if drawn.area is not None:
            picture = np.zeros((*drawn.area.shape, 4))
            picture[drawn.area] = to_rgba(drawn.color, AREA_ALPHA)
            axes.imshow(
                picture,
                extent=(x_min, x_max, y_min, y_max),
                origin='lower',
                interpolation='nearest',
                transform=placed + axes.transData,
                zorder=0.2 + 0.01 * level,
            )
        if drawn.outlined is not None:
            above = drawn.outlined > HEADLINE
            if above.any() and not above.all():
                x, y = np.moveaxis(centres, -1, 0)
                axes.contour(x, y, drawn.outlined, [HEADLINE], colors=[drawn.color], linewidths=1.3, zorder=1.8)
    axes.set(xlim=limits[0], ylim=limits[1])
