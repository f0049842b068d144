"""True boxes as the devkit loads them, checked, counted by a rule, and placed relative to the vehicle."""

from collections.abc import Callable, Mapping

import numpy as np
from nuscenes import NuScenes
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.common.loaders import filter_eval_boxes, load_gt_of_sample_tokens
from nuscenes.eval.detection.constants import ATTRIBUTE_NAMES
from nuscenes.eval.detection.data_classes import DetectionBox
from nuscenes.eval.tracking.data_classes import TrackingBox

from bevformer_plugin.datasets.infos import (
    check_annotations,
    check_transform,
    counted_boxes,
    reference_record,
    visibility_level,
)
from bevformer_plugin.errors import InputError

BICYCLE_RACK = 'static_object.bicycle_rack'
Rows = dict[str, list[dict]]  # sample token -> rows of sample_annotation


def load_truth(
    nusc: NuScenes,
    sample_tokens: list[str],
    box_class: type[DetectionBox] | type[TrackingBox],
    name_of: Callable[[str], str | None],
    rule: str,
) -> tuple[EvalBoxes, Rows]:
    """Load the true boxes of samples as the devkit does, with points for exactly those that count by a rule.

    Args:
        nusc: tables with the samples and their annotations.
        sample_tokens: the samples.
        box_class: the devkit's class of the boxes.
        name_of: the devkit's function from a category's name to the class that is scored, None for those that are not.
        rule: which true boxes count, see :func:`counted_boxes`.

    Returns:
        The true boxes, and for each sample the annotations that they are made of, in the same order.

    Raises:
        InputError: naming the first annotation that is broken.
    """
    rows = _checked_annotations(nusc, sample_tokens, name_of)
    truth = load_gt_of_sample_tokens(nusc, sample_tokens, box_class)
    _apply_rule(truth, rows, rule, nusc)
    return truth, rows


def boxes_within_range(nusc: NuScenes, boxes: EvalBoxes, class_range: Mapping[str, float]) -> EvalBoxes:
    """Give boxes their places relative to the vehicle, and keep those that the devkit's filters keep.

    Args:
        nusc: the tables.
        boxes: of detections or of tracks, changed in place.
        class_range: class name -> metres from the vehicle within which boxes count.
    """
    for token in boxes.sample_tokens:
        record = reference_record(nusc, nusc.get('sample', token))
        pose = nusc.get('ego_pose', record['ego_pose_token'])
        check_transform(pose, 'ego_pose', f'sample {token}')
        origin = pose['translation']
        for box in boxes[token]:
            box.ego_translation = tuple(place - start for place, start in zip(box.translation, origin, strict=True))
    # The devkit looks at the type of the first box, so it fails if there are no boxes.
    return filter_eval_boxes(nusc, boxes, {**class_range}) if boxes.all else boxes


def require_true_boxes(truth: EvalBoxes, rule: str) -> None:
    """Refuse to score samples of which no true box counts.

    Args:
        truth: what the filters have left of the true boxes.
        rule: the rule by which they count.

    Raises:
        InputError: if nothing is left.
    """
    if not truth.all:
        raise InputError(
            f'no true box of the {len(truth.sample_tokens)} samples counts by true_boxes={rule!r} within the '
            "devkit's class ranges, so there is nothing to score against: write the submission only (--format-only), "
            'or take another rule (--true-boxes)'
        )


def _checked_annotations(nusc: NuScenes, sample_tokens: list[str], name_of: Callable[[str], str | None]) -> Rows:
    """Return the annotations of samples in the order in which the devkit makes true boxes of them.

    All that the devkit reads are checked, bicycle racks as well, because it leaves out bicycles in racks.

    Raises:
        InputError: naming the first broken one.
    """
    found: Rows = {}
    for token in sample_tokens:
        rows = [nusc.get('sample_annotation', name) for name in nusc.get('sample', token)['anns']]
        found[token] = [row for row in rows if name_of(row['category_name']) is not None]
        _check_rows(nusc, [row for row in rows if name_of(row['category_name']) or _is_rack(row)])
    return found


def _is_rack(row: dict) -> bool:
    return row['category_name'] == BICYCLE_RACK


def _check_rows(nusc: NuScenes, rows: list[dict]) -> None:
    """Refuse annotations with broken numbers or attributes that the devkit does not know."""
    check_annotations(rows)
    for row in rows:
        for token in row['attribute_tokens']:
            name = nusc.get('attribute', token)['name']
            if name not in ATTRIBUTE_NAMES:
                raise InputError(
                    f'sample {row["sample_token"]}: annotation {row["token"]} has attribute {name!r}; the devkit '
                    f'scores {", ".join(ATTRIBUTE_NAMES)}, and a box may have none'
                )


def _apply_rule(truth: EvalBoxes, rows: Rows, rule: str, nusc: NuScenes) -> None:
    """Make the devkit's filter, which keeps true boxes with points, keep those that count by another rule.

    True boxes that count get one point, the others none; by the rule 'points' all keep theirs.

    Args:
        truth: true boxes, changed in place.
        rows: annotations of each sample, in the order of its boxes.
        rule: see :func:`counted_boxes`.
        nusc: the tables.
    """
    annotations = [row for of_sample in rows.values() for row in of_sample]
    points = np.array([row['num_lidar_pts'] + row['num_radar_pts'] for row in annotations])
    visibility = np.array([visibility_level(nusc, row) for row in annotations])
    counted = counted_boxes(rule, points, visibility)
    if rule == 'points':
        return
    for box, counts in zip(truth.all, counted.tolist(), strict=True):
        box.num_pts = int(counts)
