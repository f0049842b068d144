"""The part about scores: whether they say how often boxes are right."""

import numpy as np
from markupsafe import Markup

from bevformer_plugin.evaluation.reliability import Reliability

from .analysis import RunAnalysis
from .blocks import Charts, Part, Row, Table, class_title, count_cell, count_text, number_cell
from .charts import Curve, line_chart, share_axis

IDEAL = Curve('precision = score', np.array([0.0, 1.0]), np.array([0.0, 1.0]), 5, 'dashed')


def reliability_part(run: RunAnalysis) -> Part:
    """Return the part about the reliability of the scores of a run."""
    lead = (
        'Predicted boxes by their score, and the share of them that match a true box within 2 m. Below the dashed '
        'line, scores promise too much.'
    )
    overall = run.reliability[0]
    charts = (reliability_chart([overall], [run.name], overall.name),)
    return Part(
        'reliability', 'Reliability of scores', lead, (Charts(charts), _bins(overall), _errors(run.reliability))
    )


def reliability_chart(curves: list[Reliability], names: list[str], title: str) -> Markup:
    """Draw reliability curves beside the line on which score and precision are the same."""
    drawn = [IDEAL]
    for color, (curve, name) in enumerate(zip(curves, names, strict=True)):
        notes = tuple(
            f'scores {curve.edges[i]:.1f} to {curve.edges[i + 1]:.1f}: {count_text(int(count))} boxes, '
            f'{100 * curve.precisions[i]:.0f} % right'
            for i, count in enumerate(curve.counts)
        )
        label = f'{name}: calibration error {curve.calibration_error:.3f}'
        drawn.append(Curve(label, curve.mean_scores, curve.precisions, color, 'points', notes))
    axes = share_axis('score'), share_axis('precision at 2 m')
    return line_chart(drawn, *axes, title, f'reliability-{title.replace(" ", "-")}')


def _bins(curve: Reliability) -> Table:
    """Return the table of the bins of all classes together."""
    rows = [
        Row(
            f'{curve.edges[i]:.1f} to {curve.edges[i + 1]:.1f}',
            (
                count_cell(int(count)),
                number_cell(curve.mean_scores[i].item()),
                number_cell(curve.precisions[i].item()),
            ),
        )
        for i, count in enumerate(curve.counts)
    ]
    return Table('reliability-bins', ('score', 'boxes', 'mean score', 'precision'), tuple(rows))


def _errors(curves: list[Reliability]) -> Table:
    """Return the table of calibration errors."""
    rows = [
        Row(class_title(curve.name), (count_cell(int(curve.counts.sum())), number_cell(curve.calibration_error)))
        for curve in curves
    ]
    return Table('reliability', ('class', 'boxes', 'calibration error'), tuple(rows))
