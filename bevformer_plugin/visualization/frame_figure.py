"""The picture of one keyframe: all cameras above the bird's-eye view, with title, legend and counts."""

from collections import Counter

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from bevformer_plugin.errors import InputError
from bevformer_plugin.nuscenes_format import TRACKED_CLASSES

from .bev_view import ARROW, VELOCITY_SECONDS, draw_bev
from .camera_overlay import draw_camera
from .frames import Boxes, PicturedFrame
from .map_layers import AREA_ALPHA, MapLayers
from .palette import CLASS_COLORS, FAINT_TEXT, PAGE, RING, TEXT, TRUTH_EDGE, class_color, track_color

CAMERA_ORDER = ('CAM_FRONT_LEFT', 'CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_BACK_LEFT', 'CAM_BACK', 'CAM_BACK_RIGHT')
COLUMNS = 3
WIDTH, HEADER, GAP, BEV_SIZE = 1920, 60, 6, 860  # pixels: page, title above the cameras, between pictures, BEV
PANEL_WIDTH = (WIDTH - (COLUMNS - 1) * GAP) // COLUMNS
SIDE_WIDTH = (WIDTH - BEV_SIZE) // 2
DPI = 100
TITLE_SIZE, TEXT_SIZE = 17, 14  # points
LINE_HEIGHT = 50  # pixels from line to line beside the bird's-eye view


def draw_frame(frame: PicturedFrame, score_thr: float = 0.3, note: str = '') -> np.ndarray:
    """Draw the picture of a frame.

    Args:
        frame: the frame.
        score_thr: predicted boxes below this score are left out.
        note: a few words for the right end of the title.

    Returns:
        The picture, (H, W, 3) uint8 BGR.

    Raises:
        FileNotFoundError: an image is missing.
        InputError: training would refuse an image, or ``score_thr`` is no number from 0 to 1.
    """
    check_score_threshold(score_thr)
    predictions = frame.predictions
    if predictions is not None:
        predictions = predictions.select(predictions.scores >= score_thr)
    pictures = _camera_pictures(frame, predictions)
    panel_height = len(next(iter(pictures.values())))
    rows = -(-len(pictures) // COLUMNS)
    height = HEADER + rows * (panel_height + GAP) + BEV_SIZE + 2 * GAP
    figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor=PAGE)
    canvas = FigureCanvasAgg(figure)

    _draw_title(_pixel_axes(figure, 0, 0, WIDTH, HEADER), frame, note)
    for index, (camera, picture) in enumerate(pictures.items()):
        row, column = divmod(index, COLUMNS)
        in_row = min(COLUMNS, len(pictures) - row * COLUMNS)
        left = column * (PANEL_WIDTH + GAP) + (COLUMNS - in_row) * (PANEL_WIDTH + GAP) // 2
        top = HEADER + row * (panel_height + GAP)
        figure.figimage(picture[..., ::-1], left, height - top - panel_height)
        figure.text(
            (left + 10) / WIDTH,
            1 - (top + 10) / height,
            camera.removeprefix('CAM_').replace('_', ' '),
            color=TEXT,
            fontsize=12,
            fontweight='bold',
            va='top',
            bbox={'facecolor': PAGE, 'alpha': 0.65, 'edgecolor': 'none', 'pad': 3},
        )
    top = height - BEV_SIZE - GAP
    draw_bev(
        figure.add_axes((SIDE_WIDTH / WIDTH, GAP / height, BEV_SIZE / WIDTH, BEV_SIZE / height)),
        frame.truth,
        predictions,
        frame.points(),
        frame.layers,
    )
    side = _pixel_axes(figure, 0, top, SIDE_WIDTH, BEV_SIZE)
    below = LINE_HEIGHT
    if frame.truth is not None or predictions is not None:
        below = _draw_legend(side, frame.truth is not None, predictions, score_thr)
        _draw_counts(_pixel_axes(figure, WIDTH - SIDE_WIDTH, top, SIDE_WIDTH, BEV_SIZE), frame.truth, predictions)
    if frame.layers is not None:
        _draw_map_legend(side, frame.layers, below)
    canvas.draw()
    return cv2.cvtColor(np.asarray(canvas.buffer_rgba()), cv2.COLOR_RGBA2BGR)


def check_score_threshold(score_thr: float) -> None:
    """Refuse a score threshold that is no number from 0 to 1.

    Raises:
        InputError: naming the threshold.
    """
    if not isinstance(score_thr, int | float | np.number) or not 0 <= score_thr <= 1:
        raise InputError(f'the score threshold must be a number from 0 to 1, as scores are, not {score_thr!r}')


def camera_order(cameras: tuple[str, ...]) -> list[str]:
    """Order names of cameras as one looks around the vehicle; those that nuScenes does not have come last."""
    in_order = [camera for camera in CAMERA_ORDER if camera in cameras]
    return [*in_order, *(camera for camera in cameras if camera not in in_order)]


def _camera_pictures(frame: PicturedFrame, predictions: Boxes | None) -> dict[str, np.ndarray]:
    """Draw a picture with boxes for each camera, by the camera's name.

    The pictures are ordered as one looks around the vehicle and all have the shape of the first camera's image.
    """
    cameras = camera_order(frame.cameras)
    images = {camera: frame.image(camera) for camera in cameras}
    first = images[cameras[0]]
    # The height is even, because videos need even numbers of pixels.
    size = (PANEL_WIDTH, 2 * round(PANEL_WIDTH * first.shape[0] / first.shape[1] / 2))
    return {
        camera: draw_camera(image, frame.lidar2img(camera), frame.truth, predictions, size)
        for camera, image in images.items()
    }


def _pixel_axes(figure: Figure, left: int, top: int, width: int, height: int) -> Axes:
    """Add invisible axes whose coordinates are pixels from their upper left corner."""
    total_w, total_h = (round(size * DPI) for size in figure.get_size_inches())
    axes = figure.add_axes((left / total_w, 1 - (top + height) / total_h, width / total_w, height / total_h))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis('off')
    return axes


def _draw_title(axes: Axes, frame: PicturedFrame, note: str) -> None:
    axes.text(
        14,
        HEADER / 2,
        frame.title,
        color=TEXT,
        fontsize=TITLE_SIZE,
        fontweight='bold',
        va='center',
    )
    axes.text(
        WIDTH / 2,
        HEADER / 2,
        frame.subtitle,
        color=FAINT_TEXT,
        fontsize=TEXT_SIZE,
        family='monospace',
        va='center',
        ha='center',
    )
    axes.text(WIDTH - 14, HEADER / 2, note, color=TEXT, fontsize=TITLE_SIZE, va='center', ha='right')


def _draw_legend(axes: Axes, with_truth: bool, predictions: Boxes | None, score_thr: float) -> float:
    """Explain what fills, outlines, ticks and arrows of boxes mean, and return the height in pixels below it."""
    left, right, color = 40, 90, CLASS_COLORS['car']
    axes.text(left, LINE_HEIGHT, 'Legend', color=TEXT, fontsize=TITLE_SIZE, fontweight='bold', va='center')
    y, lines = LINE_HEIGHT, []
    if with_truth:
        y += LINE_HEIGHT
        axes.add_patch(Rectangle((left, y - 13), right - left, 26, facecolor=color, alpha=0.55))
        axes.add_patch(Rectangle((left, y - 13), right - left, 26, fill=False, edgecolor=TRUTH_EDGE, linewidth=0.8))
        lines.append('true box')
    if predictions is not None:
        y += LINE_HEIGHT
        edge = color if predictions.ids is None else track_color('12')
        axes.add_patch(Rectangle((left, y - 13), right - left, 26, fill=False, edgecolor=edge, linewidth=2))
        lines.append(f'predicted box, score at least {score_thr:g}')
        if predictions.ids is not None:
            y += LINE_HEIGHT
            axes.text(left, y, '12', color=edge, fontsize=TEXT_SIZE, va='center')
            lines.append('id and colour of a track')
    y += LINE_HEIGHT
    axes.plot([left, right], [y, y], color=TRUTH_EDGE, linewidth=1.2)
    axes.plot([left], [y], color=TRUTH_EDGE, marker='|', markersize=14)
    lines.append('line from the centre: heading')
    y += LINE_HEIGHT
    axes.annotate('', (right + 2, y), (left, y), arrowprops={**ARROW, 'color': TRUTH_EDGE})
    lines.append(f'arrow: motion in {VELOCITY_SECONDS:g} s')
    for index, line in enumerate(lines, start=2):
        axes.text(right + 20, index * LINE_HEIGHT, line, color=TEXT, fontsize=TEXT_SIZE, va='center')
    return y + 1.5 * LINE_HEIGHT


def _draw_map_legend(axes: Axes, layers: MapLayers, y: float) -> None:
    """Explain the colours of the map, from a height in pixels downwards."""
    left, right = 40, 90
    title = f"Map, protocol '{layers.protocol.name}'"
    axes.text(left, y, title, color=TEXT, fontsize=TITLE_SIZE, fontweight='bold', va='center')
    for drawn in layers.drawn():
        y += LINE_HEIGHT
        if drawn.area is not None:
            axes.add_patch(Rectangle((left, y - 13), right - left, 26, facecolor=drawn.color, alpha=AREA_ALPHA))
        if drawn.outlined is not None:
            axes.add_patch(Rectangle((left, y - 13), right - left, 26, fill=False, edgecolor=drawn.color, linewidth=2))
        axes.text(right + 20, y, drawn.name.replace('_', ' '), color=TEXT, fontsize=TEXT_SIZE, va='center')
    y += LINE_HEIGHT
    axes.text(left, y, layers.meaning, color=FAINT_TEXT, fontsize=TEXT_SIZE, va='center')


def _draw_counts(axes: Axes, truth: Boxes | None, predictions: Boxes | None) -> None:
    """List the classes with their colours and how many boxes of each the picture holds."""
    boxes = {'true': truth, 'predicted': predictions}
    tables = {name: Counter(part.names) for name, part in boxes.items() if part is not None}
    tracks = predictions is not None and predictions.ids is not None
    others = sorted(set().union(*tables.values()) - CLASS_COLORS.keys())
    classes = [*CLASS_COLORS, *others]
    columns = {name: 360 + 130 * index for index, name in enumerate(tables)}
    axes.text(40, LINE_HEIGHT, 'Boxes', color=TEXT, fontsize=TITLE_SIZE, fontweight='bold', va='center')
    for name, x in columns.items():
        axes.text(x, LINE_HEIGHT, name, color=FAINT_TEXT, fontsize=TEXT_SIZE, va='center', ha='right')
    for index, name in enumerate(classes, start=2):
        y, color = index * LINE_HEIGHT, class_color(name)
        present = any(table[name] for table in tables.values())
        axes.add_patch(Rectangle((40, y - 12), 24, 24, facecolor=color, alpha=1 if present else 0.35))
        axes.text(
            80, y, name.replace('_', ' '), color=TEXT if present else FAINT_TEXT, fontsize=TEXT_SIZE, va='center'
        )
        for column, x in columns.items():
            untracked = column == 'predicted' and tracks and name not in TRACKED_CLASSES
            axes.text(
                x,
                y,
                '-' if untracked else str(tables[column][name]),
                color=TEXT if tables[column][name] else RING,
                fontsize=TEXT_SIZE,
                va='center',
                ha='right',
            )
    y = (len(classes) + 2) * LINE_HEIGHT
    axes.axhline(y - LINE_HEIGHT / 2, 40 / SIDE_WIDTH, max(columns.values()) / SIDE_WIDTH, color=RING, linewidth=0.8)
    axes.text(80, y, 'all', color=TEXT, fontsize=TEXT_SIZE, va='center')
    for column, x in columns.items():
        axes.text(x, y, str(tables[column].total()), color=TEXT, fontsize=TEXT_SIZE, va='center', ha='right')
