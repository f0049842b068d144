"""The official nuScenes tracking metric, on a whole split or on the samples that info files cover."""

import importlib.util
import json
import math
from pathlib import Path

from nuscenes import NuScenes

from bevformer_plugin.datasets.infos import check_rule, refuse_tables_that_do_not_fit
from bevformer_plugin.errors import InputError
from bevformer_plugin.nuscenes_format import TRACKED_CLASSES

from .devkit_evaluation import find_scored_samples
from .results import load_tracks

TRACKING_SCORES = ('tracking_summary.json', 'tracking_details.json')  # files that an evaluation writes
TRACKING_SUMMARY = TRACKING_SCORES[0]
COLUMNS = {'AMOTA': 'amota', 'AMOTP': 'amotp', 'MOTA': 'mota', 'recall': 'recall', 'IDS': 'ids', 'FRAG': 'frag'}
COUNTS = ('IDS', 'FRAG')


def evaluate_tracks(
    results_path: str,
    root: str,
    version: str,
    split: str | None = None,
    infos: str | None = None,
    out_dir: str | None = None,
    true_boxes: str = 'points',
) -> dict:
    """Score a submission of tracks by the devkit's metric, and write the scores to files.

    The devkit replaces the score of each box by the mean over its track, and fills gaps of tracks, true and predicted
    ones, by boxes on a straight line.

    Args:
        results_path: the submission, a JSON file.
        root: as of :func:`evaluate_results`, like all that follow.
        version: nuScenes version.
        split: name of a split.
        infos: info file; if it covers a part of the split, the samples of that part are scored.
        out_dir: folder for ``tracking_summary.json`` and ``tracking_details.json``, by default that of the results.
        true_boxes: which annotated objects count; official scores are those of 'points'.

    Returns:
        The devkit's metrics summary, and ``true_boxes``, ``num_samples``, ``num_split_samples``, ``num_predictions``
        (within range) and ``classes_present``.

    Raises:
        FileNotFoundError: a file or folder is missing.
        InputError: motmetrics is not installed; results, infos, split and version do not match; results or tables are
            broken; two scenes share the id of a track; the tables hold no annotations; or no true box counts.
    """
    require_motmetrics()
    from .sample_tracking import SampleTrackingEval  # imports motmetrics, which only this part needs

    check_rule(true_boxes)
    results = load_tracks(results_path)
    scored = find_scored_samples({results_path: results}, root, version, split, infos)
    _refuse_shared_ids(results, scored.nusc)
    out = Path(results_path).parent if out_dir is None else Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    with refuse_tables_that_do_not_fit(scored.nusc, f'split {scored.split}'):
        evaluation = SampleTrackingEval(scored.nusc, str(results_path), scored.tokens, str(out), true_boxes)
    metrics, details = evaluation.evaluate()
    summary = {
        **metrics.serialize(),
        'meta': evaluation.meta,
        'true_boxes': true_boxes,
        'num_samples': len(scored.tokens),
        'num_split_samples': scored.num_split_samples,
        'num_predictions': len(evaluation.pred_boxes.all),
        'classes_present': sorted({box.tracking_name for box in evaluation.gt_boxes.all}),
    }
    for name, content in zip(TRACKING_SCORES, (summary, details.serialize()), strict=True):
        Path(out, name).write_text(json.dumps(content, indent=2))
    return summary


def require_motmetrics() -> None:
    """Refuse to score tracks without the library that the devkit needs for it.

    Raises:
        InputError: naming it, and how to install it.
    """
    if importlib.util.find_spec('motmetrics') is None:
        raise InputError(
            'scoring tracks needs motmetrics, which is not installed: pip install "bevformer_plugin[tracking]", or '
            'pip install motmetrics'
        )


def tracking_table(summary: dict) -> str:
    """Write the scores of tracks as one table; a mean is over the classes with true boxes."""
    lines = [f'{"class":<12}' + ''.join(f'{name:>8}' for name in COLUMNS)]
    of_classes = summary['label_metrics']
    for name in TRACKED_CLASSES:
        note = '' if name in summary['classes_present'] else '   no true boxes'
        lines.append(f'{name:<12}' + _cells({key: of_classes[key][name] for key in COLUMNS.values()}) + note)
    lines.append(f'{"all":<12}' + _cells(summary))
    if summary['num_samples'] < summary['num_split_samples']:
        lines.append(f"scored {summary['num_samples']} of the split's {summary['num_split_samples']} samples")
    if summary['true_boxes'] != 'points':
        lines.append(f'true boxes count by {summary["true_boxes"]!r}; official scores count those with points')
    return '\n'.join(lines)


def _cells(values: dict[str, float]) -> str:
    """Write a row of numbers, '-' for those that do not exist."""
    return ''.join(
        '       -' if math.isnan(values[key]) else f'{values[key]:8.0f}' if name in COUNTS else f'{values[key]:8.3f}'
        for name, key in COLUMNS.items()
    )


def _refuse_shared_ids(results: dict[str, list[dict]], nusc: NuScenes) -> None:
    """Refuse tracks that go on in another scene, where the devkit would take them for the same object."""
    scene_of: dict[str, str] = {}
    for token, entries in results.items():
        scene = nusc.get('sample', token)['scene_token']
        for entry in entries:
            if scene_of.setdefault(entry['tracking_id'], scene) != scene:
                raise InputError(
                    f'tracking_id {entry["tracking_id"]!r} is in two scenes, {scene_of[entry["tracking_id"]]} and '
                    f'{scene} (sample {token}): ids are unique over all scenes'
                )
