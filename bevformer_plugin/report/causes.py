"""The parts about what goes wrong: the error budget, and which classes are taken for which."""

import numpy as np
from nuscenes.eval.detection.constants import DETECTION_NAMES

from bevformer_plugin.evaluation.confusion import Confusion
from bevformer_plugin.evaluation.error_budget import CAUSES, ErrorBudget
from bevformer_plugin.evaluation.matching import DISTANCES

from .analysis import RunAnalysis
from .blocks import Cell, Charts, Paragraph, Part, Row, Table, class_title, count_cell, count_text, number, number_cell
from .charts import Bar, axis_from_zero, bar_chart

MEANINGS = {  # of CAUSES
    'class': 'a box of another class is where it should be',
    'localisation': 'right class, centre too far off',
    'duplicate': 'right class and place, but another box with a higher score is there already',
    'background': 'nothing is there',
    'missed': 'true boxes that nothing accounts for',
    'orientation': 'heading of found boxes',
    'size': 'size of found boxes',
    'velocity': 'velocity of found boxes',
    'attribute': 'attribute of found boxes, such as parked or moving',
}
DARK = 0.55  # heat from which on letters are white
WARMEST = 0.85  # heat of the largest number


def budget_part(run: RunAnalysis) -> Part:
    """Return the part with the error budget of a run."""
    budget = run.budget
    axis = axis_from_zero('NDS gained', max(share.nds_gain for share in budget.shares))
    axis_ap = axis_from_zero('mAP gained', max(share.ap_gain for share in budget.shares))
    charts = (
        bar_chart(
            [Bar(share.cause, share.nds_gain, note=MEANINGS[share.cause]) for share in budget.shares],
            axis,
            'NDS gained by mending one cause',
            'budget-nds',
        ),
        bar_chart(
            [Bar(share.cause, share.ap_gain, note=MEANINGS[share.cause], color=2) for share in budget.shares],
            axis_ap,
            'mAP gained by mending one cause',
            'budget-map',
        ),
    )
    lead = (
        f'NDS {number(budget.scores.nds)} of the {number(budget.perfect.nds)} that the true boxes themselves would '
        f'get here: {number(budget.nds_lost)} is lost. Every wrong and every missing box has one cause. Gains do not '
        'add up to the loss: one cause hides another. A missed box is mended by not counting it.'
    )
    return Part(
        'budget',
        'Error budget',
        lead,
        (
            Charts(charts),
            cause_table(budget),
            Paragraph('False and missing boxes', is_title=True),
            Paragraph('Predicted boxes without a match and true boxes without one, at each distance of the devkit.'),
            count_table(budget),
            Paragraph('AP gained in each class', is_title=True),
            class_gains(budget, [curves.true_count > 0 for curves in run.curves]),
        ),
    )


def cause_table(budget: ErrorBudget) -> Table:
    """Return the table of what the causes mean and cost."""
    rows = tuple(
        Row(
            share.cause,
            (
                Cell(MEANINGS[share.cause], kind='words'),
                number_cell(share.nds_gain, signed=True),
                Cell(f'{number(100 * share.share, 0)} %', share.share),
                number_cell(share.ap_gain, signed=True),
            ),
        )
        for share in budget.shares
    )
    return Table('budget', ('cause', 'of', 'NDS gained', 'of the loss', 'mAP gained'), rows)


def count_table(budget: ErrorBudget) -> Table:
    """Return the table of wrong and missing boxes of each cause, at each distance."""
    head = ('cause', *(f'{kind}, {distance:g} m' for kind in ('false', 'missing') for distance in DISTANCES))
    rows = [
        Row(share.cause, (*map(count_cell, share.false_positives.tolist()), *map(count_cell, share.misses.tolist())))
        for share in budget.shares
        if share.false_positives.any() or share.misses.any()
    ]
    total = (*map(count_cell, budget.false_positives.tolist()), *map(count_cell, budget.misses.tolist()))
    return Table('budget-counts', head, (*rows, Row('all', total, kind='total')))


def class_gains(budget: ErrorBudget, present: list[bool]) -> Table:
    """Return the table of AP gained in each class that has true boxes, darker where there is more to gain."""
    detection = [cause for cause, gains in zip(CAUSES, budget.class_ap_gains, strict=True) if np.abs(gains).max() > 0]
    rows = []
    largest = max(float(budget.class_ap_gains.max()), 1e-9)
    for index, name in enumerate(DETECTION_NAMES):
        if present[index]:
            gains = [float(budget.class_ap_gains[CAUSES.index(cause), index]) for cause in detection]
            cells = tuple(_warm(number(gain, 3, signed=True), gain, gain / largest) for gain in gains)
            rows.append(Row(class_title(name), cells))
    return Table('budget-classes', ('class', *detection), tuple(rows), style='matrix')


def confusion_part(run: RunAnalysis) -> Part:
    """Return the part with the confusion of classes."""
    lead = (
        'Rows are true classes, columns what was predicted within 2 m. Boxes count from the score on that gives their '
        'class its best F1.'
    )
    return Part('confusion', 'Confusion of classes', lead, (confusion_table(run.confusion),))


def confusion_table(confusion: Confusion) -> Table:
    """Return the matrix; its shades are shares of a row."""
    true_totals = confusion.counts.sum(1) + confusion.missed
    shown = [
        index
        for index in range(len(DETECTION_NAMES))
        if true_totals[index] or confusion.counts[:, index].any() or confusion.unmatched[index]
    ]
    titles = [class_title(DETECTION_NAMES[index]) for index in shown]
    rows = []
    for index, title in zip(shown, titles, strict=True):
        counts = [*confusion.counts[index, shown].tolist(), int(confusion.missed[index])]
        total = max(int(true_totals[index]), 1)
        rows.append(Row(title, tuple(_count(count, count / total) for count in counts)))
    false = confusion.unmatched[shown].tolist()
    largest = max(*false, 1)
    rows.append(
        Row(
            'nothing there',
            (*(_count(count, count / largest) for count in false), Cell()),
        )
    )
    thresholds = confusion.thresholds[shown].tolist()
    rows.append(Row('from score', (*(number_cell(threshold, 2) for threshold in thresholds), Cell()), kind='total'))
    return Table('confusion', ('true \\ predicted', *titles, 'missed'), tuple(rows), style='matrix')


def _count(count: int, share: float) -> Cell:
    return _warm(count_text(count) if count else '·', count, share)


def _warm(text: str, value: float, share: float) -> Cell:
    """Return a cell that is the darker the larger its share of 1 is."""
    heat = WARMEST * min(max(share, 0.0), 1.0)
    return Cell(text, value, kind='strong' if heat > DARK else '', heat=heat)
