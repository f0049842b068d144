"""Scores for people to read: a table, and a warning if the numbers hint at a wrong convention of boxes."""

import json
import math
from pathlib import Path

from nuscenes.eval.detection.constants import DETECTION_NAMES

from bevformer_plugin.errors import InputError

MEAN_ERRORS = {  # name in tables -> the devkit's key
    'mATE': 'trans_err',
    'mASE': 'scale_err',
    'mAOE': 'orient_err',
    'mAVE': 'vel_err',
    'mAAE': 'attr_err',
}
USEFUL_MAP = 0.05  # below this mAP, boxes are too wrong to say anything about their convention


def metric_values(summary: dict) -> dict[str, float]:
    """Return NDS, mAP, the five mean errors and AP/<class> of a metrics summary, by name."""
    values = {'NDS': summary['nd_score'], 'mAP': summary['mean_ap']}
    values.update((name, summary['tp_errors'][key]) for name, key in MEAN_ERRORS.items())
    values.update((f'AP/{name}', summary['mean_dist_aps'][name]) for name in DETECTION_NAMES)
    return values


def metrics_table(summary: dict) -> str:
    """Write the scores as one table.

    NDS and mAP are the devkit's, over all ten classes, whichever of them the model detects.
    """
    values = metric_values(summary)
    lines = [
        f'NDS {values["NDS"]:.4f}   mAP {values["mAP"]:.4f}   '
        + '   '.join(f'{name} {values[name]:.3f}' for name in MEAN_ERRORS),
        f'{"class":<22}{"AP":>7}' + ''.join(f'{name[1:]:>7}' for name in MEAN_ERRORS),
    ]
    present, detected = summary['classes_present'], summary['classes_detected']
    for name in DETECTION_NAMES:
        errors = summary['label_tp_errors'][name]
        cells = ''.join(
            '      -' if math.isnan(errors[key]) else f'{errors[key]:7.3f}' for key in MEAN_ERRORS.values()
        )
        notes = '' if name in present else '   no true boxes'
        notes += '' if detected is None or name in detected else '   not detected'
        lines.append(f'{name:<22}{values[f"AP/{name}"]:7.3f}{cells}{notes}')
    if present:
        lines += _mean_over_some(values, present, 'with true boxes')
    if detected is not None:
        lines += _mean_over_some(values, detected, 'that the model detects')
    if summary['num_samples'] < summary['num_split_samples']:
        lines.append(f"scored {summary['num_samples']} of the split's {summary['num_split_samples']} samples")
    if summary['true_boxes'] != 'points':
        lines.append(f'true boxes count by {summary["true_boxes"]!r}; official scores count those with points')
    if not summary['num_predictions']:
        lines.append("note: no predicted box lies within the devkit's class ranges, so the score is 0")
    warning = box_convention_warning(summary)
    return '\n'.join([*lines, warning] if warning else lines)


def read_summary(path: str | Path) -> dict:
    """Read a ``metrics_summary.json``.

    Raises:
        InputError: the file holds something else.
    """
    try:
        summary = json.loads(Path(path).read_text())
        metric_values(summary)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f'{path} is no metrics_summary.json of tools/test.py or tools/evaluate.py') from error
    return summary


def _mean_over_some(values: dict[str, float], classes: list[str], which: str) -> list[str]:
    """Write a line with the mAP over some of the ten classes, and no line if they are all ten."""
    if len(classes) == len(DETECTION_NAMES):
        return []
    mean = sum(values[f'AP/{name}'] for name in classes) / len(classes)
    return [f'mAP over the {len(classes)} {"class" if len(classes) == 1 else "classes"} {which}: {mean:.4f}']


def comparison_table(summaries: dict[str, dict]) -> str:
    """Write a table with a row of scores for each run, and a warning if they are of different samples or true boxes.

    Args:
        summaries: metrics summaries by the run's name.
    """
    width = max(map(len, summaries))
    lines = [' ' * width + ''.join(f'{name:>8}' for name in ('NDS', 'mAP', *MEAN_ERRORS))]
    for run, summary in summaries.items():
        values = metric_values(summary)
        lines.append(f'{run:<{width}}' + ''.join(f'{values[name]:8.3f}' for name in ('NDS', 'mAP', *MEAN_ERRORS)))
    conditions = {run: _conditions(summary) for run, summary in summaries.items()}
    if len(set(conditions.values())) > 1:
        lines.append('warning: these scores are not of the same samples or true boxes, and do not compare:')
        lines += [f'{run:<{width}}  {condition}' for run, condition in conditions.items()]
    return '\n'.join(lines)


def _conditions(summary: dict) -> str:
    """Describe on what a summary was scored; a summary of the devkit's own does not say it."""
    if not {'num_samples', 'num_split_samples', 'true_boxes'} <= summary.keys():
        return 'does not say on how many samples, nor of which true boxes'
    return (
        f'{summary["num_samples"]} of {summary["num_split_samples"]} samples of the split, true boxes by '
        f'{summary["true_boxes"]!r}'
    )


def box_convention_warning(summary: dict) -> str | None:
    """Return a warning if boxes are found but their sizes and headings are wrong, else None.

    Such scores are typical of boxes in another convention than the true ones.
    """
    values = metric_values(summary)
    if values['mAP'] > USEFUL_MAP and values['mASE'] > 0.6 and values['mAOE'] > 1.3:
        return (
            f'warning: mASE {values["mASE"]:.2f} and mAOE {values["mAOE"]:.2f} with mAP {values["mAP"]:.2f} look '
            'like boxes in the convention of mmdetection3d before 1.0 (length and width swapped, yaw turned): '
            'convert the checkpoint or the info files'
        )
    return None
