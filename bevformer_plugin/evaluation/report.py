"""Scores for people: one table, and a warning where numbers point to a wrong box convention."""

import json
from pathlib import Path

from nuscenes.eval.detection.constants import DETECTION_NAMES

from bevformer_plugin.errors import InputError

ERRORS = ('trans_err', 'scale_err', 'orient_err', 'vel_err', 'attr_err')
NAMES = ('mATE', 'mASE', 'mAOE', 'mAVE', 'mAAE')
USEFUL_MAP = 0.05


def metric_values(summary: dict) -> dict[str, float]:
    """NDS, mAP, the five mean errors, and AP/<class>."""
    values = {'NDS': summary['nd_score'], 'mAP': summary['mean_ap']}
    values.update((name, summary['tp_errors'][key]) for name, key in zip(NAMES, ERRORS, strict=True))
    values.update((f'AP/{name}', summary['mean_dist_aps'][name]) for name in DETECTION_NAMES)
    return values


def metrics_table(summary: dict) -> str:
    """The scores as one table; NDS and mAP are the devkit's, over all ten classes, whatever the model detects."""
    values = metric_values(summary)
    lines = [
        f'NDS {values["NDS"]:.4f}   mAP {values["mAP"]:.4f}   '
        + '   '.join(f'{name} {values[name]:.3f}' for name in NAMES),
        f'{"class":<22}{"AP":>7}' + ''.join(f'{name[1:]:>7}' for name in NAMES),
    ]
    present, detected = summary['classes_present'], summary['classes_detected']
    for name in DETECTION_NAMES:
        errors = summary['label_tp_errors'][name]
        cells = ''.join('      -' if errors[key] != errors[key] else f'{errors[key]:7.3f}' for key in ERRORS)
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
        InputError: if the file is something else.
    """
    try:
        summary = json.loads(Path(path).read_text())
        metric_values(summary)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f'{path} is no metrics_summary.json of tools/test.py or tools/evaluate.py') from error
    return summary


def _mean_over_some(values: dict[str, float], classes: list[str], which: str) -> list[str]:
    """A line with the mAP over some of the ten classes; none if it is over all of them."""
    if len(classes) == len(DETECTION_NAMES):
        return []
    mean = sum(values[f'AP/{name}'] for name in classes) / len(classes)
    return [f'mAP over the {len(classes)} {"class" if len(classes) == 1 else "classes"} {which}: {mean:.4f}']


def comparison_table(summaries: dict[str, dict]) -> str:
    """One row of scores per run, name -> metrics summary."""
    width = max(map(len, summaries))
    lines = [' ' * width + ''.join(f'{name:>8}' for name in ('NDS', 'mAP', *NAMES))]
    for run, summary in summaries.items():
        values = metric_values(summary)
        lines.append(f'{run:<{width}}' + ''.join(f'{values[name]:8.3f}' for name in ('NDS', 'mAP', *NAMES)))
    return '\n'.join(lines)


def box_convention_warning(summary: dict) -> str | None:
    """A warning if boxes are found but their sizes and headings are off, the fingerprint of mixed conventions."""
    values = metric_values(summary)
    if values['mAP'] > USEFUL_MAP and values['mASE'] > 0.6 and values['mAOE'] > 1.3:
        return (
            f'warning: mASE {values["mASE"]:.2f} and mAOE {values["mAOE"]:.2f} with mAP {values["mAP"]:.2f} look '
            'like boxes in the convention of mmdetection3d before 1.0 (length and width swapped, yaw turned): '
            'convert the checkpoint or the info files'
        )
    return None
