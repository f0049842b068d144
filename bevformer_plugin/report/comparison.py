"""The view of two runs: differences with paired intervals, so that noise is not read as progress."""

from collections.abc import Iterable
from math import isfinite

import numpy as np
from markupsafe import Markup
from nuscenes.eval.detection.constants import DETECTION_NAMES

from bevformer_plugin.evaluation.bootstrap import Interval
from bevformer_plugin.evaluation.detection_scores import ClassCurves
from bevformer_plugin.evaluation.matching import DISTANCES, TP_DISTANCE

from .analysis import RunAnalysis
from .blocks import (
    MINUS,
    Block,
    Cell,
    Charts,
    Paragraph,
    Part,
    Row,
    Table,
    View,
    class_title,
    count_cell,
    interval_text,
    number,
    number_cell,
)
from .charts import Bar, Curve, axis_around_zero, axis_from_zero, bar_chart, interval_bar, line_chart, share_axis
from .classes import reached
from .headline import FEWEST_SCENES, HIGHER_IS_BETTER, LABELS, interval_words
from .reliability_part import reliability_chart
from .slice_part import main_score, slice_key

TOO_FEW = 'too few scenes'
NOISE = 'within noise'


def comparison_view(first: RunAnalysis, other: RunAnalysis, key: str) -> View:
    """Return the view that compares a run with the first one; all differences are the other's minus the first's."""
    names = f'{other.name} {MINUS} {first.name}'
    parts = (_headline(first, other), _classes(first, other), _slices(first, other), _budget(first, other))
    title = f'{other.name} compared with {first.name}'
    return View(key, names, title, (*parts, _reliability(first, other)))


def reading(difference: Interval, scenes: int, higher_is_better: bool) -> tuple[str, str]:
    """Say in words what a difference means, and by which style it is shown.

    Args:
        difference: of a run to the first.
        scenes: how many its interval is over.
        higher_is_better: whether a positive difference is an improvement.

    Returns:
        'better' or 'worse', or 'within noise' where the interval holds 0, or 'too few scenes'; and a style.
    """
    if scenes < FEWEST_SCENES:
        return TOO_FEW, 'noise'
    if not difference.excludes_zero:
        return NOISE, 'noise'
    is_better = (difference.value > 0) == higher_is_better
    return ('better', 'better') if is_better else ('worse', 'worse')


def _headline(first: RunAnalysis, other: RunAnalysis) -> Part:
    assert other.difference is not None, 'a run other than the first has a difference'
    differences = other.difference.headline
    rows = tuple(
        _difference_row(
            f'{name}, {LABELS[name]}',
            first.bootstrap.headline[name].value,
            other.bootstrap.headline[name].value,
            difference,
            reading(difference, other.difference.scenes, name in HIGHER_IS_BETTER),
            _largest(differences.values()),
        )
        for name, difference in differences.items()
    )
    lead = (
        'A difference is called better or worse only if its interval, from the same drawn scenes for both runs, '
        f'leaves out 0, and there are at least {FEWEST_SCENES} scenes; all else may be noise.'
    )
    table = Table('difference', ('', *_columns(first, other)), rows)
    return Part('headline', 'Headline', lead, (table, Paragraph(interval_words(other.difference))))


def _classes(first: RunAnalysis, other: RunAnalysis) -> Part:
    assert other.difference is not None, 'a run other than the first has a difference'
    differences = other.difference.class_aps
    rows = tuple(
        _difference_row(
            class_title(name),
            float(first.scores.class_aps[DETECTION_NAMES.index(name)]),
            float(other.scores.class_aps[DETECTION_NAMES.index(name)]),
            difference,
            reading(difference, other.difference.scenes, higher_is_better=True),
            _largest(differences.values()),
        )
        for name, difference in differences.items()
    )
    charts = tuple(
        _precision_chart(curves, others, (first.name, other.name))
        for curves, others in zip(first.curves, other.curves, strict=True)
        if curves.true_count
    )
    blocks: tuple[Block, ...] = (
        Table('difference-classes', ('AP', *_columns(first, other)), rows),
        Paragraph(f'Precision against recall at {TP_DISTANCE:g} m', is_title=True),
        Charts(charts),
    )
    return Part('classes', 'Classes', 'Ten classes are ten chances to be fooled: one may stand out by luck.', blocks)


def _slices(first: RunAnalysis, other: RunAnalysis) -> Part:
    blocks: list[Block] = []
    for of_first, of_other in zip(first.slices, other.slices, strict=True):
        score = 'recall 2 m' if of_first.of_truth_only else 'mAP'
        head = ('slice', 'true', f'{score}, {first.name}', f'{score}, {other.name}', 'difference', '')
        pairs = [
            (one, main_score(one), main_score(two)) for one, two in zip(of_first.slices, of_other.slices, strict=True)
        ]
        largest = max((abs(after - before) for _, before, after in pairs if isfinite(after - before)), default=0.0)
        rows = tuple(
            Row(
                one.name,
                (
                    count_cell(int(one.true_counts.sum())),
                    number_cell(before),
                    number_cell(after),
                    number_cell(after - before, signed=True),
                    _bar_cell(one.name, after - before, None, largest),
                ),
            )
            for one, before, after in pairs
        )
        blocks += [Paragraph(of_first.name, is_title=True), Table(slice_key(of_first), head, rows)]
    lead = 'These differences have no intervals: they say where to look, not that a run is better there.'
    return Part('slices', 'Slices', lead, tuple(blocks))


def _budget(first: RunAnalysis, other: RunAnalysis) -> Part:
    highest = max(share.nds_gain for run in (first, other) for share in run.budget.shares)
    axis = axis_from_zero('NDS gained', highest)
    bars = [
        Bar(share.cause if run is first else '', share.nds_gain, note=f'{share.cause}, {run.name}', color=color)
        for pair in zip(first.budget.shares, other.budget.shares, strict=True)
        for color, (run, share) in enumerate(zip((first, other), pair, strict=True))
    ]
    title = f'NDS that mending a cause would give: {first.name} above, {other.name} below'
    rows = tuple(
        Row(
            one.cause,
            (
                number_cell(one.nds_gain, signed=True),
                number_cell(two.nds_gain, signed=True),
                number_cell(two.nds_gain - one.nds_gain, signed=True),
            ),
        )
        for one, two in zip(first.budget.shares, other.budget.shares, strict=True)
    )
    table = Table('difference-budget', ('cause', first.name, other.name, 'difference'), rows)
    lead = 'What each cause still costs. Without intervals, as for slices.'
    return Part('budget', 'Error budget', lead, (Charts((bar_chart(bars, axis, title, 'budget-both'),)), table))


def _reliability(first: RunAnalysis, other: RunAnalysis) -> Part:
    curves = [run.reliability[0] for run in (first, other)]
    chart = reliability_chart(curves, [first.name, other.name], curves[0].name)
    return Part('reliability', 'Reliability of scores', '', (Charts((chart,)),))


def _columns(first: RunAnalysis, other: RunAnalysis) -> tuple[str, ...]:
    return (first.name, other.name, 'difference', '95 % interval', '', 'reading')


def _difference_row(
    name: str, before: float, after: float, difference: Interval, words_and_style: tuple[str, str], largest: float
) -> Row:
    words, style = words_and_style
    ends = (difference.low, difference.high)
    return Row(
        name,
        (
            number_cell(before),
            number_cell(after),
            number_cell(difference.value, signed=True, kind=style),
            Cell(interval_text(ends, signed=True)),
            _bar_cell(name, difference.value, ends, largest),
            Cell(words, kind=style),
        ),
    )


def _bar_cell(name: str, value: float, interval: tuple[float, float] | None, largest: float) -> Cell:
    if not isfinite(value):
        return Cell()
    note = f'{name}: {number(value, signed=True)}'
    return Cell(kind='bar-cell', drawing=interval_bar(value, interval, axis_around_zero('', largest), note))


def _largest(differences: Iterable[Interval]) -> float:
    """Return the largest magnitude of some differences and their intervals."""
    numbers = np.array([[difference.value, difference.low, difference.high] for difference in differences])
    return float(np.nanmax(np.abs(numbers), initial=0.0))


def _precision_chart(first: ClassCurves, other: ClassCurves, names: tuple[str, str]) -> Markup:
    at = DISTANCES.index(TP_DISTANCE)
    drawn = [
        Curve(name, *reached(curves, at, curves.precision[at]), color, style)
        for color, (curves, name, style) in enumerate(zip((first, other), names, ('dashed', 'line'), strict=True))
    ]
    axes = share_axis('recall'), share_axis('precision')
    return line_chart(drawn, *axes, class_title(first.name), f'precision-both-{first.name}')
