"""Charts as inline SVG: pure functions of numbers, in colours and fonts that the page's style sheet gives.

Every chart is drawn 340 units wide, which is about a telephone's width in pixels, so that its letters stay readable
there; wider screens show several side by side.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
from markupsafe import Markup, escape

from .blocks import number

WIDTH = 340
LEFT, RIGHT, TOP, BOTTOM = 42, 14, 8, 36  # room for ticks and titles of the axes
PLOT_HEIGHT = 170
LABELS, VALUES = 128, 54  # room for names left of bars and for numbers right of them
ROW = 24  # height of a bar with its space
LONGEST_NAME = 24  # characters of a bar's name that fit into LABELS
POINT_RADIUS = 3


@dataclass(frozen=True)
class Axis:
    """One axis of a chart.

    Attributes:
        title: what it measures, with the unit.
        low: value at its start.
        high: value at its end, above ``low``.
        ticks: values that are written beside it.
    """

    title: str
    low: float
    high: float
    ticks: tuple[float, ...]

    def fraction(self, value: float) -> float:
        """Return where a value lies, from 0 at ``low`` to 1 at ``high``; values beyond are moved to the ends."""
        return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)


@dataclass(frozen=True)
class Curve:
    """One curve of a line chart.

    Attributes:
        name: what it is, for legend and tooltip.
        x, y: places (n,); where one of them is not finite, the curve has a gap.
        color: number of its colour.
        style: 'line', 'dashed' or 'points', the last of which are joined by a thin line.
        notes: a tooltip for each point, for the style 'points'.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    color: int
    style: str = 'line'
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bar:
    """One bar of a bar chart.

    Attributes:
        name: what it is.
        value: its length, NaN for a bar that has none.
        interval: low and high end of the whisker, None draws none.
        note: tooltip.
        color: number of its colour.
    """

    name: str
    value: float
    interval: tuple[float, float] | None = None
    note: str = ''
    color: int = 0


def share_axis(title: str) -> Axis:
    """Return an axis from 0 to 1."""
    return Axis(title, 0.0, 1.0, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0))


def axis_from_zero(title: str, highest: float) -> Axis:
    """Return an axis from 0 to a round number that is not below ``highest``, with four to six ticks."""
    highest = highest if isfinite(highest) and highest > 0 else 1.0
    power = 10.0 ** np.floor(np.log10(highest / 5))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power * 5 >= highest * (1 - 1e-9))
    count = int(np.ceil(highest / step - 1e-9))
    return Axis(title, 0.0, float(count * step), tuple(float(index * step) for index in range(count + 1)))


def axis_around_zero(title: str, largest: float) -> Axis:
    """Return an axis with 0 in its middle that reaches to ``largest`` to both sides, or further to a round number."""
    half = axis_from_zero(title, largest).high
    return Axis(title, -half, half, (-half, 0.0, half))


def line_chart(curves: Sequence[Curve], x_axis: Axis, y_axis: Axis, title: str, key: str) -> Markup:
    """Draw curves with a legend below.

    Args:
        curves: what is drawn, the first at the bottom.
        x_axis, y_axis: the axes.
        title: stands above the chart.
        key: name of the chart for links and tests, such as ``pr-car``.

    Returns:
        A ``figure`` element.
    """
    height = TOP + PLOT_HEIGHT + BOTTOM
    parts = [_grid(x_axis, y_axis)]
    parts += [_curve(curve, x_axis, y_axis) for curve in curves]
    legend = ''.join(
        f'<li class="c{curve.color}"><i class="{escape(curve.style)}"></i>{escape(curve.name)}</li>'
        for curve in curves
    )
    svg = _svg(title, height, ''.join(parts))
    return _figure(title, key, svg + (f'<ul class="legend">{legend}</ul>' if legend else ''))


def bar_chart(bars: Sequence[Bar], axis: Axis, title: str, key: str) -> Markup:
    """Draw horizontal bars from 0, each with its name, its number and perhaps a whisker.

    Args:
        bars: from the uppermost to the lowest.
        axis: has 0 in it.
        title: stands above the chart.
        key: name of the chart for links and tests.

    Returns:
        A ``figure`` element.
    """
    left, right, bottom = LABELS, WIDTH - VALUES, TOP + ROW * len(bars)

    def place(value: float) -> float:
        return left + axis.fraction(value) * (right - left)

    parts = []
    for tick in axis.ticks:
        x = place(tick)
        parts.append(_line(x, TOP, x, bottom, 'zero' if tick == 0 else 'grid'))
        parts.append(_text(x, bottom + 14, _tick(tick, axis), 'tick', 'middle'))
    parts.append(_text((left + right) / 2, bottom + 29, axis.title, 'axis', 'middle'))
    for index, bar in enumerate(bars):
        parts.append(_bar(bar, TOP + ROW * index, place))
    return _figure(title, key, _svg(title, bottom + BOTTOM, ''.join(parts)))


def interval_bar(value: float, interval: tuple[float, float] | None, axis: Axis, note: str) -> Markup:
    """Draw a bar with a whisker that fills the cell of a table, without letters of its own."""

    def percent(place: float) -> float:
        return 100 * axis.fraction(place)

    zero, end = percent(0.0), percent(value if isfinite(value) else 0.0)
    whisker = ''
    if interval is not None and all(map(isfinite, interval)):
        low, high = map(percent, interval)
        whisker = _line(low, 5, high, 5, 'whisker') + ''.join(_line(x, 2, x, 8, 'whisker') for x in (low, high))
    middle = _line(zero, 0, zero, 10, 'zero') if axis.low < 0 else ''
    return Markup(
        f'<svg class="in-cell" viewBox="0 0 100 10" preserveAspectRatio="none" role="img"><title>{escape(note)}'
        f'</title><rect x="0" y="0" width="100" height="10" class="track"/><rect class="bar" x="{_n(min(zero, end))}" '
        f'y="2" width="{_n(abs(end - zero))}" height="6"/>{middle}{whisker}</svg>'
    )


def _svg(title: str, height: float, content: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {_n(height)}" role="img" aria-label="{escape(title)}" '
        f'xmlns="http://www.w3.org/2000/svg">{content}</svg>'
    )


def _figure(title: str, key: str, content: str) -> Markup:
    return Markup(
        f'<figure class="chart" data-chart="{escape(key)}"><figcaption>{escape(title)}</figcaption>{content}</figure>'
    )


def _grid(x_axis: Axis, y_axis: Axis) -> str:
    """Draw lines, ticks and titles of both axes of a line chart."""
    right, bottom = WIDTH - RIGHT, TOP + PLOT_HEIGHT
    parts = []
    for tick in x_axis.ticks:
        x = LEFT + x_axis.fraction(tick) * (right - LEFT)
        parts += [
            _line(x, TOP, x, bottom, 'grid'),
            _text(x, bottom + 14, _tick(tick, x_axis), 'tick', 'middle'),
        ]
    for tick in y_axis.ticks:
        y = bottom - y_axis.fraction(tick) * PLOT_HEIGHT
        parts += [_line(LEFT, y, right, y, 'grid'), _text(LEFT - 5, y + 3.5, _tick(tick, y_axis), 'tick', 'end')]
    middle = TOP + PLOT_HEIGHT / 2
    parts += [
        _text((LEFT + right) / 2, bottom + 29, x_axis.title, 'axis', 'middle'),
        f'<text class="axis" text-anchor="middle" transform="translate(10 {_n(middle)}) rotate(-90)">'
        f'{escape(y_axis.title)}</text>',
    ]
    return ''.join(parts)


def _curve(curve: Curve, x_axis: Axis, y_axis: Axis) -> str:
    """Draw a curve in pieces between its gaps, and its points if its style says so."""
    right, bottom = WIDTH - RIGHT, TOP + PLOT_HEIGHT
    path, pen_is_down, places = [], False, []
    for x_value, y_value in zip(curve.x.tolist(), curve.y.tolist(), strict=True):
        if not (isfinite(x_value) and isfinite(y_value)):
            pen_is_down = False
            places.append(None)
            continue
        x = LEFT + x_axis.fraction(x_value) * (right - LEFT)
        y = bottom - y_axis.fraction(y_value) * PLOT_HEIGHT
        path.append(f'{"L" if pen_is_down else "M"}{_n(x)} {_n(y)}')
        places.append((x, y))
        pen_is_down = True
    title = f'<title>{escape(curve.name)}</title>'
    drawn = f'<path class="curve {escape(curve.style)}" d="{"".join(path)}">{title}</path>' if path else ''
    if curve.style == 'points':
        for place, note in zip(places, curve.notes or (curve.name,) * len(places), strict=True):
            if place is not None:
                drawn += (
                    f'<circle cx="{_n(place[0])}" cy="{_n(place[1])}" r="{POINT_RADIUS}"><title>{escape(note)}'
                    '</title></circle>'
                )
    return f'<g class="c{curve.color}" data-curve="{escape(curve.name)}">{drawn}</g>'


def _bar(bar: Bar, top: float, place: Callable[[float], float]) -> str:
    """Draw one row of a bar chart."""
    middle = top + ROW / 2
    shown = bar.name if len(bar.name) <= LONGEST_NAME else bar.name[: LONGEST_NAME - 1] + '…'
    parts = [f'<title>{escape(bar.note or bar.name)}</title>', _text(0, middle + 3.5, shown, 'name', 'start')]
    if isfinite(bar.value):
        start, end = sorted((place(0.0), place(bar.value)))
        parts.append(
            f'<rect class="bar" x="{_n(start)}" y="{_n(top + 5)}" width="{_n(max(end - start, 0.5))}" '
            f'height="{ROW - 10}" rx="1.5"/>'
        )
    if bar.interval is not None and all(map(isfinite, bar.interval)):
        low, high = (place(end) for end in bar.interval)
        parts.append(_line(low, middle, high, middle, 'whisker'))
        parts += [_line(x, middle - 3, x, middle + 3, 'whisker') for x in (low, high)]
    parts.append(_text(WIDTH - 2, middle + 3.5, number(bar.value), 'number', 'end'))
    return f'<g class="c{bar.color}" data-bar="{escape(bar.name)}" data-value="{bar.value!r}">{"".join(parts)}</g>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}"/>'


def _text(x: float, y: float, text: str, kind: str, anchor: str) -> str:
    return f'<text class="{kind}" x="{_n(x)}" y="{_n(y)}" text-anchor="{anchor}">{escape(text)}</text>'


def _tick(value: float, axis: Axis) -> str:
    """Write a tick with as many decimals as the ticks of its axis need."""
    decimals = next(
        (places for places in range(4) if all(abs(round(tick, places) - tick) < 1e-9 for tick in axis.ticks)), 4
    )
    return number(value, decimals)


def _n(value: float) -> str:
    """Write a coordinate with two decimals at most."""
    return f'{value:.2f}'.rstrip('0').rstrip('.')
