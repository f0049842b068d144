"""Which annotated objects count as true boxes: one rule for training targets, evaluation and pictures.

'points': at least one LiDAR or radar point lies in the box; nuScenes scores and BEVFormer was trained by this rule.
'visibility': at least 40 % of the object's pixels are visible over all cameras, level 2 of nuScenes' table
``visibility``.
'all': every annotated box; for data without LiDAR and radar.
"""

import numpy as np

from bevformer_plugin.errors import InputError

TRUE_BOX_RULES = ('points', 'visibility', 'all')
LEAST_VISIBILITY = 2  # levels: 1 is 0-40 % visible, 2 is 40-60 %, 3 is 60-80 %, 4 is 80-100 %; 0 is unknown
REMEDIES = {
    'points': "data without LiDAR and radar needs true_boxes='visibility' or 'all' (--true-boxes)",
    'visibility': "take true_boxes='points' or 'all' (--true-boxes)",
}


def check_rule(rule: str) -> None:
    """Refuse an unknown rule for true boxes.

    Raises:
        InputError: naming the rules.
    """
    if rule not in TRUE_BOX_RULES:
        raise InputError(f'true_boxes must be one of {", ".join(TRUE_BOX_RULES)}, not {rule!r}')


def counted_boxes(rule: str, points: np.ndarray, visibility: np.ndarray) -> np.ndarray:
    """Decide which of n annotated boxes count as true boxes.

    Args:
        rule: 'points', 'visibility' or 'all', see the module's docstring.
        points: (n,) LiDAR and radar points in each box.
        visibility: (n,) levels 1 to 4, 0 where unknown.

    Returns:
        (n,) bool, True for boxes that count.

    Raises:
        InputError: the rule is unknown, it needs a visibility that is not known, or none of the boxes counts.
    """
    check_rule(rule)
    if rule == 'points':
        counted = points > 0
    elif rule == 'visibility':
        unknown = int((visibility == 0).sum())
        if unknown:
            raise InputError(
                f"true_boxes='visibility', but {unknown} of {len(visibility)} boxes have no known visibility: make "
                "infos from tables that have it (tools/create_data.py nuscenes), or take true_boxes='points' or 'all'"
            )
        counted = visibility >= LEAST_VISIBILITY
    else:
        counted = np.ones(len(points), dtype=bool)
    if len(counted) and not counted.any():
        raise InputError(f'none of {len(counted)} boxes counts by true_boxes={rule!r}: {REMEDIES[rule]}')
    return counted


def count_true_boxes(entries: list[dict], rule: str) -> tuple[int, int]:
    """Set ``bbox_3d_isvalid`` of all instances to whether they count as true boxes.

    Args:
        entries: from :func:`load_infos`; they are changed in place.
        rule: see :func:`counted_boxes`.

    Returns:
        How many instances count, and how many there are.

    Raises:
        InputError: see :func:`counted_boxes`.
    """
    instances = [instance for entry in entries for instance in entry['instances']]
    points = np.array([instance['num_lidar_pts'] + instance['num_radar_pts'] for instance in instances])
    visibility = np.array([instance['visibility'] for instance in instances])
    counted = counted_boxes(rule, points, visibility)
    for instance, counts in zip(instances, counted.tolist(), strict=True):
        instance['bbox_3d_isvalid'] = counts
    return int(counted.sum()), len(instances)


def box_table(name: str, entries: list[dict]) -> str:
    """Write one line that says how many boxes of a split count by each rule and how visible they are.

    It also says so if the velocity of most is not known: the devkit takes it from keyframes at most 1.5 s apart.
    """
    instances = [instance for entry in entries for instance in entry['instances']]
    points = sum(instance['num_lidar_pts'] + instance['num_radar_pts'] > 0 for instance in instances)
    levels = np.bincount([instance['visibility'] for instance in instances], minlength=5).tolist()
    parts = zip(('unknown', '0-40 %', '40-60 %', '60-80 %', '80-100 %'), levels, strict=True)
    visible = ', '.join(f'{level} {count}' for level, count in parts if count or level != 'unknown')
    unknown = sum(not np.isfinite(instance['velocity']).all() for instance in instances)
    slow = (
        f'; {unknown} of unknown velocity, as of keyframes more than 1.5 s apart'
        if 2 * unknown > len(instances)
        else ''
    )
    return f'{name}: {len(instances)} boxes, {points} with LiDAR or radar points; visibility {visible}{slow}'
