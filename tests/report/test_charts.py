"""Charts: where curves and bars lie, gaps, axes, and what is escaped."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from bevformer_plugin.report.charts import (
    LEFT,
    PLOT_HEIGHT,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    Bar,
    Curve,
    axis_around_zero,
    axis_from_zero,
    bar_chart,
    interval_bar,
    line_chart,
    share_axis,
)


def points_of(figure: ElementTree.Element, name: str) -> list[list[tuple[float, float]]]:
    """Points of a curve in units of axes from 0 to 1, piece by piece."""
    (curve,) = [group for group in figure.iter() if group.get('data-curve') == name]
    path = next(element for element in curve.iter() if element.tag.endswith('path'))
    pieces = path.get('d', '').split('M')[1:]
    pairs = [[tuple(map(float, pair.split())) for pair in piece.split('L')] for piece in pieces]
    return [
        [((x - LEFT) / (WIDTH - RIGHT - LEFT), (TOP + PLOT_HEIGHT - y) / PLOT_HEIGHT) for x, y in piece]
        for piece in pairs
    ]


def test_a_curve_lies_where_its_numbers_say():
    curve = Curve('car', np.array([0.0, 0.5, 1.0]), np.array([1.0, 0.75, 0.0]), 0)
    figure = ElementTree.fromstring(line_chart([curve], share_axis('recall'), share_axis('precision'), 'car', 'key'))
    (piece,) = points_of(figure, 'car')
    assert piece == [pytest.approx(point, abs=1e-4) for point in ((0, 1), (0.5, 0.75), (1, 0))]
    assert figure.get('data-chart') == 'key'


def test_a_number_that_is_not_finite_is_a_gap():
    curve = Curve('car', np.array([0.0, 0.2, 0.4, 0.6]), np.array([0.1, np.nan, 0.3, 0.4]), 0)
    figure = ElementTree.fromstring(line_chart([curve], share_axis('x'), share_axis('y'), 'car', 'key'))
    assert [len(piece) for piece in points_of(figure, 'car')] == [1, 2]


def test_points_have_their_own_tooltips():
    curve = Curve('all', np.array([0.1, np.nan]), np.array([0.2, np.nan]), 0, 'points', ('3 boxes', 'none'))
    drawn = line_chart([curve], share_axis('x'), share_axis('y'), 'all', 'key')
    assert drawn.count('<circle') == 1 and '3 boxes' in drawn and 'none' not in drawn


def test_a_bar_ends_at_its_value_and_its_whisker_at_the_interval():
    axis = Axis('NDS', 0.0, 0.5, (0.0, 0.5))
    drawn = ElementTree.fromstring(bar_chart([Bar('missed', 0.25, (0.125, 0.5))], axis, 'budget', 'key'))
    ticks = {float(text.text): float(text.get('x')) for text in drawn.iter() if text.get('class') == 'tick'}
    (bar,) = [rect for rect in drawn.iter() if rect.get('class') == 'bar']
    middle = (ticks[0.0] + ticks[0.5]) / 2
    assert float(bar.get('x')) == ticks[0.0]
    assert float(bar.get('x')) + float(bar.get('width')) == pytest.approx(middle, abs=0.02)
    ends = [float(line.get(key)) for line in drawn.iter() if line.get('class') == 'whisker' for key in ('x1', 'x2')]
    assert min(ends) == pytest.approx((ticks[0.0] + middle) / 2, abs=0.02) and max(ends) == ticks[0.5]


def test_bars_to_the_left_and_without_a_number():
    drawn = bar_chart([Bar('a', -0.1), Bar('b', float('nan'))], axis_around_zero('x', 0.1), 'title', 'key')
    figure = ElementTree.fromstring(drawn)
    numbers = [text.text for text in figure.iter() if text.get('class') == 'number']
    assert numbers == ['\N{MINUS SIGN}0.100', '\N{EN DASH}']
    (bar,) = [rect for rect in figure.iter() if rect.get('class') == 'bar']
    zero = next(float(line.get('x1')) for line in figure.iter() if line.get('class') == 'zero')
    assert float(bar.get('x')) + float(bar.get('width')) == pytest.approx(zero, abs=0.02)


@pytest.mark.parametrize('highest', [1e-4, 0.0123, 0.09, 0.1, 0.34, 1.0, 1.07, 3.9, 17.0, 950.0])
def test_axes_end_at_round_numbers(highest):
    axis = axis_from_zero('x', highest)
    assert highest <= axis.high * (1 + 1e-9) and axis.high <= 2.01 * highest
    assert 3 <= len(axis.ticks) <= 7 and axis.ticks[0] == 0 and axis.ticks[-1] == axis.high
    both = axis_around_zero('x', highest)
    assert both.low == -both.high and highest <= both.high and both.ticks == (both.low, 0.0, both.high)


@pytest.mark.parametrize('highest', [0.0, -1.0, float('nan'), float('inf')])
def test_axes_without_a_highest_number(highest):
    assert axis_from_zero('x', highest).high == 1.0


def test_words_are_escaped():
    name = '<script>"&'
    chart = line_chart([Curve(name, np.zeros(1), np.zeros(1), 0)], share_axis(name), share_axis(name), name, name)
    for drawn in (
        chart,
        bar_chart([Bar(name, 1.0)], share_axis(name), name, name),
        interval_bar(0.5, None, share_axis(''), name),
    ):
        assert '<script' not in drawn
        assert re.search('&lt;script&gt;', drawn)
        ElementTree.fromstring(drawn)
