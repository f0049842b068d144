"""Bird's-eye view: LiDAR points, range rings, the ego vehicle, true and predicted boxes."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Polygon
from matplotlib.patheffects import withStroke

from .frames import Boxes
from .map_layers import MapLayers, draw_map
from .palette import FAINT_TEXT, GROUND, PAGE, RING, TEXT, TRUTH_EDGE

LIMIT = 54.0  # metres shown to each side
RING_STEP = 10.0  # metres from one range ring to the next
VELOCITY_SECONDS = 1.0  # an arrow ends where its object is after this time
MIN_SPEED = 0.3  # m/s below which no arrow is drawn
ARROW = {'arrowstyle': '-|>', 'shrinkA': 0, 'shrinkB': 0}
UNDERSIDE, FRONT_BOTTOM = [0, 4, 7, 3], [4, 7]  # indices of corners, see Boxes.corners
LABEL_SIZE = 9  # points, of the ids of tracks
HALO = [withStroke(linewidth=2, foreground=PAGE)]  # around text over boxes
EGO_LENGTH, EGO_WIDTH, EGO_CENTRE_Y = 4.08, 1.73, 0.35  # metres, of nuScenes' vehicle in its LiDAR frame


def draw_bev(
    axes: Axes,
    truth: Boxes | None,
    predictions: Boxes | None,
    points: np.ndarray | None,
    layers: MapLayers | None = None,
) -> None:
    """Fill axes with the view from above, in which forward is up.

    Args:
        axes: empty matplotlib axes of square shape.
        truth: true boxes, which are drawn filled, or None.
        predictions: predicted boxes, which are drawn as outlines; None draws true boxes only.
        points: (n, >= 3) LiDAR points in metres, or None.
        layers: true and predicted map, which are drawn below; None draws none.
    """
    axes.set(xlim=(-LIMIT, LIMIT), ylim=(-LIMIT, LIMIT), xticks=[], yticks=[], facecolor=GROUND, aspect='equal')
    for spine in axes.spines.values():
        spine.set_color(RING)
    if layers is not None:
        draw_map(axes, layers)
    _draw_rings(axes)
    if points is not None:
        _draw_points(axes, points)
    draw_ego(axes)
    if truth is not None:
        _draw_boxes(axes, truth, filled=True)
    if predictions is not None:
        _draw_boxes(axes, predictions, filled=False)


def _draw_rings(axes: Axes) -> None:
    for radius in np.arange(RING_STEP, LIMIT, RING_STEP):
        axes.add_patch(Circle((0, 0), radius, fill=False, edgecolor=RING, linewidth=0.8, zorder=1))
        diagonal = radius / np.sqrt(2)
        axes.text(
            diagonal,
            diagonal,
            f'{radius:.0f} m',
            color=FAINT_TEXT,
            fontsize=10,
            ha='center',
            va='center',
            zorder=1.5,
            bbox={'facecolor': GROUND, 'edgecolor': 'none', 'pad': 1},
        )
    axes.axhline(0, color=RING, linewidth=0.5, zorder=1)
    axes.axvline(0, color=RING, linewidth=0.5, zorder=1)


def _draw_points(axes: Axes, points: np.ndarray) -> None:
    x, y, z = points[:, :3].T
    on_ego = (np.abs(x) < EGO_WIDTH) & (np.abs(y) < EGO_LENGTH)
    shown = (np.maximum(np.abs(x), np.abs(y)) < LIMIT) & ~on_ego
    axes.scatter(x[shown], y[shown], c=z[shown], s=0.5, cmap='bone', vmin=-4, vmax=4, linewidths=0, zorder=2)


def draw_ego(axes: Axes) -> None:
    """Draw the vehicle, with an arrow to its front, at its place in the LiDAR frame."""
    corner = (-EGO_WIDTH / 2, EGO_CENTRE_Y - EGO_LENGTH / 2)
    axes.add_patch(
        FancyBboxPatch(
            corner,
            EGO_WIDTH,
            EGO_LENGTH,
            boxstyle='round,pad=0,rounding_size=0.5',
            facecolor=TEXT,
            edgecolor=PAGE,
            linewidth=0.8,
            zorder=3,
        )
    )
    nose = EGO_CENTRE_Y + EGO_LENGTH / 4
    axes.add_patch(Polygon([(-0.55, nose - 0.7), (0.55, nose - 0.7), (0, nose + 0.5)], facecolor=PAGE, zorder=3.1))


def _draw_boxes(axes: Axes, boxes: Boxes, filled: bool) -> None:
    """Draw footprints, each with a tick from the centre to the front and an arrow along the velocity."""
    colors = boxes.colors
    edges = [TRUTH_EDGE] * len(boxes) if filled else colors
    faces = [to_rgba(color, 0.55) for color in colors] if filled else 'none'
    style = {'linewidths': 0.7, 'zorder': 4} if filled else {'linewidths': 1.6, 'zorder': 5}
    corners = boxes.corners[:, :, :2]
    centres = boxes.values[:, :2]
    fronts = corners[:, FRONT_BOTTOM].mean(1)
    axes.add_collection(PolyCollection(list(corners[:, UNDERSIDE]), facecolors=faces, edgecolors=edges, **style))
    axes.add_collection(LineCollection(list(np.stack([centres, fronts], axis=1)), colors=edges, **style))
    for corner, label, color in zip(corners, boxes.labels, colors, strict=True):
        x, y = corner[:, 0].max(), corner[:, 1].max()
        if label and max(abs(x), abs(y)) < LIMIT:
            axes.text(x, y, label, color=color, fontsize=LABEL_SIZE, zorder=6, path_effects=HALO)
    for centre, velocity, color in zip(centres, boxes.values[:, 7:], edges, strict=True):
        if np.hypot(*velocity) > MIN_SPEED:  # False for an unknown velocity, which is NaN
            axes.add_patch(
                FancyArrowPatch(
                    centre,
                    centre + VELOCITY_SECONDS * velocity,
                    **ARROW,
                    color=color,
                    mutation_scale=7,
                    linewidth=style['linewidths'],
                    zorder=style['zorder'],
                )
            )
