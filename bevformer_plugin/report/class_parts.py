"""The part about classes: a table of scores, precision-recall curves, and errors against recall."""

from collections.abc import Mapping

import numpy as np
from markupsafe import Markup
from nuscenes.eval.detection.constants import DETECTION_NAMES
from nuscenes.eval.detection.data_classes import DetectionMetricData, DetectionMetricDataList, DetectionMetrics

from .blocks import Charts, Paragraph, Part, Row, Table, count_cell, number_cell
from .charts import Axis, Curve, axis_from_zero, line_chart, share_axis

MATCH_DISTANCE = 2.0  # metres, at which the devkit takes the errors
ERRORS = {  # the devkit's key -> (name, unit)
    'trans_err': ('translation', 'm'),
    'scale_err': ('scale', '1 − IoU'),
    'orient_err': ('orientation', 'rad'),
    'vel_err': ('velocity', 'm/s'),
    'attr_err': ('attribute', '1 − accuracy'),
}


def class_table(
    metrics: DetectionMetrics, true_counts: Mapping[str, int], predicted_counts: Mapping[str, int]
) -> Table:
    """Return the table of the classes: counts, AP at each distance, and errors at 2 m.

    Args:
        metrics: the devkit's.
        true_counts: true boxes of each class that the devkit scores.
        predicted_counts: predicted boxes of each class that the devkit scores.
    """
    distances = metrics.cfg.dist_ths
    head = ('class', 'true', 'predicted', 'AP', *(f'{distance:g} m' for distance in distances), *ERRORS)
    head = tuple({key: f'{name} ({unit})' for key, (name, unit) in ERRORS.items()}.get(word, word) for word in head)
    rows = [
        Row(
            name.replace('_', ' '),
            (
                count_cell(true_counts.get(name, 0)),
                count_cell(predicted_counts.get(name, 0)),
                number_cell(metrics.mean_dist_aps[name]),
                *(number_cell(metrics.get_label_ap(name, distance)) for distance in distances),
                *(number_cell(metrics.get_label_tp(name, key)) for key in ERRORS),
            ),
            note='' if true_counts.get(name, 0) else 'no true boxes: AP 0 and errors 1 by the devkit',
        )
        for name in DETECTION_NAMES
    ]
    means = (np.mean([metrics.get_label_ap(name, distance) for name in DETECTION_NAMES]) for distance in distances)
    total = Row(
        'mean',
        (
            count_cell(sum(true_counts.values())),
            count_cell(sum(predicted_counts.values())),
            number_cell(metrics.mean_ap),
            *(number_cell(float(mean)) for mean in means),
            *(number_cell(metrics.tp_errors[key]) for key in ERRORS),
        ),
        kind='total',
    )
    return Table('classes', head, (*rows, total))


def precision_recall_chart(name: str, metrics: DetectionMetrics, details: DetectionMetricDataList) -> Markup:
    """Draw precision against recall of a class at the devkit's distances."""
    curves = []
    for color, distance in enumerate(metrics.cfg.dist_ths):
        data = details[(name, distance)]
        reached = data.recall <= _highest_recall(data)
        label = f'{distance:g} m: AP {metrics.get_label_ap(name, distance):.3f}'
        curves.append(Curve(label, data.recall[reached], data.precision[reached], color))
    title = name.replace('_', ' ')
    return line_chart(curves, share_axis('recall'), share_axis('precision'), title, f'pr-{name}')


def error_chart(name: str, metrics: DetectionMetrics, details: DetectionMetricDataList) -> Markup:
    """Draw the errors of a class at 2 m against recall, from the recall at which the devkit begins to count."""
    data = details[(name, MATCH_DISTANCE)]
    counted = (data.recall >= metrics.cfg.min_recall) & (data.recall <= _highest_recall(data))
    curves = []
    for color, (key, (label, unit)) in enumerate(ERRORS.items()):
        mean = metrics.get_label_tp(name, key)
        if np.isnan(mean):
            continue  # the devkit has no such error for this class
        curves.append(Curve(f'{label} {mean:.3f} ({unit})', data.recall[counted], getattr(data, key)[counted], color))
    highest = max((float(np.nanmax(curve.y, initial=0.0)) for curve in curves), default=1.0)
    axis = axis_from_zero('error', highest)
    return line_chart(curves, share_axis('recall'), axis, name.replace('_', ' '), f'errors-{name}')


def class_part(
    metrics: DetectionMetrics,
    details: DetectionMetricDataList,
    true_counts: Mapping[str, int],
    predicted_counts: Mapping[str, int],
) -> Part:
    """Return the part about classes; see :func:`class_table`."""
    present = [name for name in DETECTION_NAMES if true_counts.get(name, 0)]
    absent = [name.replace('_', ' ') for name in DETECTION_NAMES if name not in present]
    blocks = [class_table(metrics, true_counts, predicted_counts)]
    if absent:
        blocks.append(
            Paragraph(
                f'No true boxes of {", ".join(absent)} in these samples: the devkit gives them AP 0 and errors of 1, '
                'and they count in the means.'
            )
        )
    blocks += [
        Paragraph('Precision against recall', is_title=True),
        Paragraph('One curve for each distance between centres within which a predicted box counts as found.'),
        Charts(tuple(precision_recall_chart(name, metrics, details) for name in present)),
        Paragraph('Errors of found boxes against recall', is_title=True),
        Paragraph(
            'Boxes found within 2 m, from the most certain on: the mean error of all up to a recall. The devkit starts '
            'at a recall of 0.1, and an orientation of barriers counts up to half a turn only.'
        ),
        Charts(tuple(error_chart(name, metrics, details) for name in present)),
    ]
    lead = (
        'Counts are of boxes that the devkit scores: true ones with points, both kinds within the range of their class.'
    )
    return Part('classes', 'Classes', lead, tuple(blocks))


def _highest_recall(data: DetectionMetricData) -> float:
    """Return the highest recall that was reached; beyond it the devkit fills in zeros."""
    return float(data.recall[data.max_recall_ind])
