"""The features of a BEV as colours, beside true and predicted boxes on the same axes."""

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bevformer_plugin.errors import InputError

from .bev_view import draw_bev, draw_ego
from .frames import PicturedFrame
from .palette import FAINT_TEXT, PAGE, RING, TEXT

WIDTH, HEIGHT, SIZE, TOP = 1920, 1090, 840, 130  # pixels: page, either view, and how far below the page's upper edge
DPI = 100
SPREAD = (1, 99)  # percentiles of a component that become its darkest and its brightest colour


def principal_colors(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn the features of a BEV into colours: red, green and blue are its first three principal components.

    A component's sign is chosen such that values far from the mean are bright more often than dark.

    Args:
        features: (H, W, C).

    Returns:
        (H, W, 3) colours in [0, 1], and the (3,) shares of the variance that the components have.

    Raises:
        InputError: the features are not finite.
    """
    if not np.isfinite(features).all():
        raise InputError('the BEV is not finite, so it has no principal components: look for weights that are NaN')
    flat = features.reshape(-1, features.shape[-1]).astype(np.float64)
    centred = flat - flat.mean(0)
    variances, directions = np.linalg.eigh(centred.T @ centred)
    order = np.argsort(-variances)[:3]
    components = centred @ directions[:, order]
    components *= np.where((components**3).sum(0) < 0, -1, 1)
    low, high = np.percentile(components, SPREAD, axis=0)
    span = np.where(high > low, high - low, 1)
    colors = np.clip((components - low) / span, 0, 1)
    total = max(variances.sum(), np.finfo(np.float64).tiny)
    return colors.reshape(*features.shape[:2], 3), np.maximum(variances[order], 0) / total


def draw_bev_features(
    features: np.ndarray,
    point_cloud_range: tuple[float, ...],
    frame: PicturedFrame,
    score_thr: float,
    note: str = '',
) -> np.ndarray:
    """Draw the features of a BEV as colours beside the boxes of its frame.

    Args:
        features: (H, W, C); row 0 is the rear, column 0 the left of the range.
        point_cloud_range: (x, y, z) minima, then maxima, LiDAR frame, metres.
        frame: of the BEV, with the boxes to draw.
        score_thr: below which predicted boxes have been left out, for the legend.
        note: a few words for the right end of the title.

    Returns:
        The picture, (H, W, 3) uint8 BGR.

    Raises:
        InputError: the features are not finite.
    """
    colors, shares = principal_colors(features)
    x_min, y_min, _, x_max, y_max, _ = point_cloud_range
    figure = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI, facecolor=PAGE)
    canvas = FigureCanvasAgg(figure)
    left, right = _view(figure, 95), _view(figure, WIDTH - SIZE - 30)
    left.imshow(colors, origin='lower', extent=(x_min, x_max, y_min, y_max), interpolation='nearest', zorder=0)
    draw_ego(left)
    draw_bev(right, frame.truth, frame.predictions, frame.points())
    rows, columns = features.shape[:2]
    for axes in (left, right):
        name_axes(axes, point_cloud_range)
    for place, text, side in (
        ((0.01, 0.01), 'row 0, column 0', 'left'),
        ((0.99, 0.99), f'row {rows - 1}, column {columns - 1}', 'right'),
    ):
        vertical = 'bottom' if side == 'left' else 'top'
        left.text(*place, text, transform=left.transAxes, ha=side, va=vertical, fontsize=10, color='white', bbox=PLATE)
    names = zip(('red', 'green', 'blue'), shares, strict=True)
    parts = ', '.join(f'{name} {share:.0%}' for name, share in names)
    left.set_title(
        f'BEV features, {rows} x {columns} cells: principal components 1 to 3 (of the variance: {parts})',
        color=TEXT,
        fontsize=11.5,
        pad=10,
    )
    boxes = [] if frame.truth is None else ['filled: true boxes']
    boxes += [] if frame.predictions is None else [f'outlines: predicted boxes, score at least {score_thr:g}']
    right.set_title('; '.join(boxes), color=TEXT, fontsize=11.5, pad=10)
    write_title(figure, frame, note)
    canvas.draw()
    return cv2.cvtColor(np.asarray(canvas.buffer_rgba()), cv2.COLOR_RGBA2BGR)


PLATE = {'facecolor': PAGE, 'alpha': 0.6, 'edgecolor': 'none', 'pad': 2}  # behind text on colours


def name_axes(axes: Axes, point_cloud_range: tuple[float, ...]) -> None:
    """Limit axes to the range and write on them which way is which, in metres of the LiDAR frame."""
    x_min, y_min, _, x_max, y_max, _ = point_cloud_range
    axes.set(xlim=(x_min, x_max), ylim=(y_min, y_max), aspect='equal')
    step = 20 if x_max - x_min > 60 else 10
    axes.set_xticks(_multiples(x_min, x_max, step))
    axes.set_yticks(_multiples(y_min, y_max, step))
    axes.tick_params(colors=FAINT_TEXT, labelsize=10)
    axes.set_xlabel('left of the vehicle  <   x in metres   >  right of the vehicle', color=TEXT, fontsize=12)
    axes.set_ylabel('behind the vehicle  <   y in metres   >  in front of the vehicle', color=TEXT, fontsize=12)
    for x, y, text in ((0.5, 0.985, 'FORWARD (+y)'), (0.985, 0.5, 'RIGHT (+x)')):
        axes.text(
            x,
            y,
            text,
            transform=axes.transAxes,
            color='white',
            fontsize=11,
            fontweight='bold',
            ha='center' if x == 0.5 else 'right',
            va='top' if x == 0.5 else 'center',
            bbox=PLATE,
            zorder=8,
        )


def write_title(figure: Figure, frame: PicturedFrame, note: str) -> None:
    """Write what is shown along the upper edge of a page."""
    width, height = (size * DPI for size in figure.get_size_inches())
    y = 1 - 32 / height
    figure.text(14 / width, y, frame.title, color=TEXT, fontsize=17, fontweight='bold', va='center')
    figure.text(0.5, y, frame.subtitle, color=FAINT_TEXT, fontsize=14, family='monospace', va='center', ha='center')
    figure.text(1 - 14 / width, y, note, color=TEXT, fontsize=14, va='center', ha='right')


def _multiples(low: float, high: float, step: int) -> np.ndarray:
    return np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step


def _view(figure: Figure, left: int) -> Axes:
    """Add square axes whose left edge lies at a pixel of the page."""
    axes = figure.add_axes((left / WIDTH, 1 - (TOP + SIZE) / HEIGHT, SIZE / WIDTH, SIZE / HEIGHT))
    for spine in axes.spines.values():
        spine.set_color(RING)
    return axes
