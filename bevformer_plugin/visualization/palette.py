"""Colours of the pictures: one for each class, one for each track, and those of the dark page."""

import zlib

from matplotlib.colors import hsv_to_rgb, to_hex, to_rgb

CLASS_COLORS = {
    'car': '#58a6ff',
    'truck': '#ff9f43',
    'construction_vehicle': '#c77dff',
    'bus': '#ffd93d',
    'trailer': '#c69c6d',
    'barrier': '#a9bcd0',
    'motorcycle': '#ff6bcb',
    'bicycle': '#2ee6a6',
    'pedestrian': '#ff6161',
    'traffic_cone': '#b5e61d',
}
OTHER_CLASS = '#e6edf3'  # of classes that nuScenes does not have
MAP_COLORS = {  # from the lowest layer to the highest
    'drivable_area': '#6e7f96',
    'road': '#6e7f96',
    'walkway': '#4f9d69',
    'carpark_area': '#9d7bd8',
    'ped_crossing': '#e0b040',
    'stop_line': '#e05a5a',
    'lane_boundary': '#f2e27a',
    'divider': '#f2e27a',
}
PAGE = '#0d1117'
GROUND = '#11161d'
RING = '#30363d'
TEXT = '#e6edf3'
FAINT_TEXT = '#8b949e'
TRUTH_EDGE = '#f0f6fc'


def class_color(name: str) -> str:
    """Return the colour of a class, one for all that nuScenes does not have."""
    return CLASS_COLORS.get(name, OTHER_CLASS)


def track_color(name: str) -> str:
    """Return the colour of a track by its id, the same in every picture and process; other tracks may share it."""
    number = zlib.crc32(name.encode())
    return to_hex(tuple(hsv_to_rgb((number % 360 / 360, 0.45 + number // 360 % 3 * 0.2, 1.0))))


def track_label(name: str) -> str:
    """Return what is written beside a box of a track: its id, without the scene that tools/track.py begins it with."""
    return name.rpartition('/')[2]


def color_bgr(color: str) -> tuple[int, int, int]:
    """Turn a colour of matplotlib into one of OpenCV: blue, green, red from 0 to 255."""
    red, green, blue = (round(255 * channel) for channel in to_rgb(color))
    return blue, green, red
