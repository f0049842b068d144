"""Where a pillar of the BEV looks in the cameras: reference points, and sampling points sized by their weights."""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .bev_features import DPI, PLATE, name_axes, write_title
from .bev_view import draw_bev
from .frame_figure import camera_order
from .frames import PicturedFrame
from .palette import FAINT_TEXT, PAGE, TEXT

WIDTH, HEADER, GAP, COLUMNS = 1920, 64, 6, 3  # pixels; cameras in a row
PANEL_WIDTH = (WIDTH - (COLUMNS - 1) * GAP) // COLUMNS
BEV_SIZE, MARGIN = 720, 80  # pixels: the view from above, and what its axes' names need
AREA = 3000.0  # square points of a sampling point that has all the weight of its layer
SMALLEST_AREA = 2.0  # the least, so that points without weight stay visible
HEADING, LINE = 15, 13  # points


@dataclass(frozen=True)
class CameraLook:
    """Where a pillar looks in one camera that sees it, in pixels (column, row) of the stored image.

    Attributes:
        reference_points: (D, 2) the projected points of the pillar, the lowest first.
        points: for each layer the (n, 2) sampling points, of all heads and levels.
        weights: for each layer their (n,) attention weights; those of all cameras sum to 1.
    """

    reference_points: np.ndarray
    points: tuple[np.ndarray, ...]
    weights: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class PillarView:
    """Where a pillar of the BEV looks in all cameras.

    Attributes:
        centre: (x, y) of its cell, LiDAR frame, metres.
        cell: (row, column).
        cell_size: (x, y) extent of the cell, metres.
        num_layers: layers of the encoder.
        looks: of the cameras that see it; empty if none does.
    """

    centre: tuple[float, float]
    cell: tuple[int, int]
    cell_size: tuple[float, float]
    num_layers: int
    looks: Mapping[str, CameraLook]

    @property
    def summary(self) -> str:
        """Which cameras see it, as a sentence."""
        x, y = self.centre
        name = f'the pillar at x {x:.1f} m, y {y:.1f} m'
        if not self.looks:
            return f'no camera sees {name}: spatial cross-attention adds nothing but a bias there'
        return f'{name} is seen by {", ".join(self.looks)}'


def layer_colors(number: int) -> list[tuple[float, ...]]:
    """Return a colour for each layer of an encoder, from the first (violet) to the last (yellow)."""
    return [colormaps['plasma'](0.3 + 0.65 * index / max(number - 1, 1)) for index in range(number)]


def draw_pillar_view(
    view: PillarView, point_cloud_range: tuple[float, ...], frame: PicturedFrame, note: str = ''
) -> np.ndarray:
    """Draw where a pillar looks: all cameras above the view from above with the pillar's place.

    Args:
        view: of the pillar.
        point_cloud_range: (x, y, z) minima, then maxima, LiDAR frame, metres.
        frame: of the cameras' images, with boxes for the view from above.
        note: a few words for the right end of the title.

    Returns:
        The picture, (H, W, 3) uint8 BGR.

    Raises:
        FileNotFoundError: an image is missing.
        InputError: an image is broken.
    """
    cameras = camera_order(frame.cameras)
    images = {camera: frame.image(camera) for camera in cameras}
    first = images[cameras[0]]
    panel_height = round(PANEL_WIDTH * first.shape[0] / first.shape[1])
    rows = -(-len(cameras) // COLUMNS)
    bev_top = HEADER + rows * (panel_height + GAP) + 20
    height = bev_top + BEV_SIZE + MARGIN
    figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor=PAGE)
    canvas = FigureCanvasAgg(figure)
    for index, (camera, image) in enumerate(images.items()):
        row, column = divmod(index, COLUMNS)
        left, top = column * (PANEL_WIDTH + GAP), HEADER + row * (panel_height + GAP)
        axes = figure.add_axes(
            (left / WIDTH, 1 - (top + panel_height) / height, PANEL_WIDTH / WIDTH, panel_height / height)
        )
        _draw_camera(axes, camera, image, view)
    bev = figure.add_axes((MARGIN / WIDTH, MARGIN / height, BEV_SIZE / WIDTH, BEV_SIZE / height))
    draw_bev(bev, frame.truth, frame.predictions, frame.points())
    name_axes(bev, point_cloud_range)
    _mark(bev, view)
    side = figure.add_axes(
        ((MARGIN + BEV_SIZE + 60) / WIDTH, MARGIN / height, 1000 / WIDTH, BEV_SIZE / height), facecolor=PAGE
    )
    _explain(side, view, len(cameras))
    write_title(figure, frame, note)
    canvas.draw()
    return cv2.cvtColor(np.asarray(canvas.buffer_rgba()), cv2.COLOR_RGBA2BGR)


def _draw_camera(axes: Axes, camera: str, image: np.ndarray, view: PillarView) -> None:
    """Draw one camera's image, dark if it does not see the pillar."""
    height, width = image.shape[:2]
    look = view.looks.get(camera)
    shown = image[..., ::-1] if look is not None else (image[..., ::-1] * 0.35).astype(np.uint8)
    axes.imshow(shown, extent=(0, width, height, 0), aspect='auto', interpolation='bilinear')
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis('off')
    name = camera.removeprefix('CAM_').replace('_', ' ')
    if look is None:
        text = f'{name}   does not see the pillar'
    else:
        for color, points, weights in zip(layer_colors(view.num_layers), look.points, look.weights, strict=True):
            axes.scatter(
                *points.T,
                s=SMALLEST_AREA + AREA * weights,
                color=color,
                alpha=0.65,
                edgecolors='black',
                linewidths=0.3,
                zorder=3,
            )
        axes.plot(*look.reference_points.T, color='white', linewidth=1, marker='+', markersize=11, zorder=4)
        weights, outside = np.concatenate(look.weights), ~inside(np.concatenate(look.points), (width, height))
        text = f'{name}   {weights[outside].sum() / weights.sum():.0%} of its weight falls outside of the image'
    axes.text(
        8 * width / PANEL_WIDTH, 8 * width / PANEL_WIDTH, text, color=TEXT, fontsize=11, va='top', bbox=PLATE, zorder=5
    )


def inside(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return which of (n, 2) pixels lie in an image of (W, H) pixels, as (n,) bools."""
    return ((points >= 0) & (points <= size)).all(-1)


def _mark(axes: Axes, view: PillarView) -> None:
    """Mark the pillar's cell by a rectangle, and by a circle that is seen from afar."""
    (x, y), (width, length) = view.centre, view.cell_size
    axes.add_patch(
        Rectangle((x - width / 2, y - length / 2), width, length, facecolor='#ffe600', edgecolor='black', zorder=7)
    )
    axes.plot([x], [y], marker='o', markersize=18, fillstyle='none', color='#ffe600', zorder=7)


def _explain(axes: Axes, view: PillarView, num_cameras: int) -> None:
    """Write what the picture shows, with a colour for each layer."""
    axes.set(xlim=(0, 1000), ylim=(BEV_SIZE, 0))
    axes.axis('off')
    (x, y), (row, column) = view.centre, view.cell
    forward = 'in front' if y >= 0 else 'behind'
    aside = 'to the right' if x >= 0 else 'to the left'
    where = f'x {x:.1f} m, y {y:.1f} m: {abs(x):.1f} m {aside}, {abs(y):.1f} m {forward}'
    axes.text(0, 20, f'Pillar at {where}', color=TEXT, fontsize=HEADING, fontweight='bold', va='center')
    axes.text(
        0, 60, f'cell in row {row}, column {column} of the BEV (yellow)', color=FAINT_TEXT, fontsize=LINE, va='center'
    )
    if not view.looks:
        text = 'No camera sees this pillar:\nspatial cross-attention adds nothing but a bias here.'
        axes.text(0, 130, text, color='#ffe600', fontsize=HEADING, fontweight='bold', va='center')
        return
    lines = f'seen by {len(view.looks)} of {num_cameras} cameras; white: the points of the pillar, one at each height'
    axes.text(0, 95, lines, color=FAINT_TEXT, fontsize=LINE, va='center')
    axes.text(0, 150, 'Sampling points', color=TEXT, fontsize=HEADING, fontweight='bold', va='center')
    for index, color in enumerate(layer_colors(view.num_layers)):
        top = 195 + 42 * index
        axes.scatter([16], [top], s=160, color=color, edgecolors='black', linewidths=0.3)
        counts = sum(len(look.points[index]) for look in view.looks.values())
        text = f'layer {index + 1} of the encoder: {counts} points of all heads, levels and cameras'
        axes.text(44, top, text, color=TEXT, fontsize=LINE, va='center')
    top = 215 + 42 * view.num_layers
    axes.text(
        0,
        top,
        "area: attention weight, as a share of the layer's; the three sizes are",
        color=FAINT_TEXT,
        fontsize=LINE,
        va='center',
    )
    for index, weight in enumerate((0.01, 0.05, 0.2)):
        axes.scatter([20 + 130 * index], [top + 48], s=SMALLEST_AREA + AREA * weight, color=FAINT_TEXT)
        axes.text(50 + 130 * index, top + 48, f'{weight:.0%}', color=TEXT, fontsize=LINE, va='center')
