"""The part about classes: a table of scores, precision-recall curves, and errors against recall."""

import numpy as np
from markupsafe import Markup

from bevformer_plugin.evaluation.detection_scores import ClassCurves, DetectionScores
from bevformer_plugin.evaluation.matching import DISTANCES, TP_DISTANCE

from .analysis import RunAnalysis
from .blocks import Block, Charts, Paragraph, Part, Row, Table, class_title, count_cell, number_cell
from .charts import Curve, axis_from_zero, line_chart, share_axis

RECALLS = np.linspace(0, 1, 101)  # of the curves
COUNTED_RECALL = 0.1  # the recall from which on the devkit counts errors
ERROR_NAMES = ('translation, m', 'size, 1 - IoU', 'orientation, rad', 'velocity, m/s', 'attribute, 1 - acc.')
ERROR_COLUMNS = ('ATE', 'ASE', 'AOE', 'AVE', 'AAE')  # the same in the devkit's letters
ERRORS_IN_WORDS = (
    'ATE, ASE, AOE, AVE and AAE are the errors in translation (m), size, orientation (rad), velocity (m/s), attribute.'
)


def class_part(run: RunAnalysis) -> Part:
    """Return the part about the classes of a run."""
    present = [number for number, curves in enumerate(run.curves) if curves.true_count]
    absent = [class_title(curves.name) for curves in run.curves if not curves.true_count]
    blocks: list[Block] = [class_table(run.curves, run.scores)]
    if absent:
        blocks.append(
            Paragraph(
                f'No true boxes of {", ".join(absent)} in these keyframes: the devkit gives such classes AP 0 and '
                'errors of 1, and they count in the means.'
            )
        )
    blocks += [
        Paragraph('Precision against recall', is_title=True),
        Paragraph('One curve for each distance between centres within which a predicted box counts as found.'),
        Charts(tuple(precision_chart(run.curves[number], run.scores.aps[number]) for number in present)),
        Paragraph('Errors of found boxes against recall', is_title=True),
        Paragraph(
            f'Boxes found within {TP_DISTANCE:g} m, from the highest score on: the mean error of all up to a recall. '
            f'The devkit counts from a recall of {COUNTED_RECALL:g} on; its numbers are in the legends.'
        ),
        Charts(tuple(error_chart(run.curves[number], run.scores.errors[number]) for number in present)),
    ]
    lead = (
        "Boxes that the devkit scores: true ones that count by the rule, both kinds within their class's range. "
        + ERRORS_IN_WORDS
    )
    return Part('classes', 'Classes', lead, tuple(blocks))


def class_table(curves: list[ClassCurves], scores: DetectionScores) -> Table:
    """Return the table of the classes: counts, AP, AP at each distance, and errors at 2 m."""
    head = ('class', 'true', 'predicted', 'AP', *(f'AP {distance:g} m' for distance in DISTANCES), *ERROR_COLUMNS)
    rows = [
        Row(
            class_title(curve.name),
            (
                count_cell(curve.true_count),
                count_cell(curve.predicted_count),
                *map(number_cell, (float(scores.class_aps[number]), *scores.aps[number].tolist())),
                *map(number_cell, scores.errors[number].tolist()),
            ),
            note='' if curve.true_count else 'no true boxes',
        )
        for number, curve in enumerate(curves)
    ]
    total = Row(
        'all, means',
        (
            count_cell(sum(curve.true_count for curve in curves)),
            count_cell(sum(curve.predicted_count for curve in curves)),
            *map(number_cell, (scores.mean_ap, *scores.aps.mean(0).tolist(), *scores.mean_errors.tolist())),
        ),
        kind='total',
    )
    return Table('classes', head, (*rows, total))


def precision_chart(curves: ClassCurves, aps: np.ndarray) -> Markup:
    """Draw precision against recall of a class at the devkit's distances; ``aps`` (4,) are for the legend."""
    drawn = [
        Curve(f'{distance:g} m: AP {aps[number]:.3f}', *reached(curves, number, curves.precision[number]), number)
        for number, distance in enumerate(DISTANCES)
    ]
    axes = share_axis('recall'), share_axis('precision')
    return line_chart(drawn, *axes, class_title(curves.name), f'precision-{curves.name}')


def error_chart(curves: ClassCurves, errors: np.ndarray) -> Markup:
    """Draw the errors of a class at 2 m against recall; ``errors`` (5,) are for the legend."""
    at = DISTANCES.index(TP_DISTANCE)
    drawn = []
    for number, name in enumerate(ERROR_NAMES):
        if np.isnan(errors[number]):
            continue  # the devkit has no such error for this class
        recalls, values = reached(curves, at, curves.errors[number])
        counted = recalls >= COUNTED_RECALL - 1e-9
        drawn.append(Curve(f'{name}: {errors[number]:.3f}', recalls[counted], values[counted], number))
    values = np.concatenate([curve.y for curve in drawn]) if drawn else np.zeros(0)
    axis = axis_from_zero('error', float(np.nanmax(values)) if np.isfinite(values).any() else 1.0)
    return line_chart(drawn, share_axis('recall'), axis, class_title(curves.name), f'errors-{curves.name}')


def reached(curves: ClassCurves, distance: int, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the recalls that a class reaches at one of the distances, and the values (101,) at these."""
    highest = curves.matched_counts[distance] / max(curves.true_count, 1)
    kept = (highest + 1e-9 >= RECALLS) & (curves.matched_counts[distance] > 0)
    return RECALLS[kept], values[kept]
