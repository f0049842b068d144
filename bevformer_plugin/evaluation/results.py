"""Submissions to nuScenes, of detections and of tracks: boxes in the global frame, a list of them per sample."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mmdet3d.evaluation.metrics.nuscenes_metric import lidar_nusc_box_to_global, output_to_nusc_box
from mmengine.structures import InstanceData
from nuscenes.eval.detection.config import config_factory
from nuscenes.eval.detection.constants import ATTRIBUTE_NAMES, DETECTION_NAMES

from bevformer_plugin.atomic_write import atomic_write
from bevformer_plugin.datasets.infos.numeric_checks import finite_rows, require_all
from bevformer_plugin.errors import InputError
from bevformer_plugin.nuscenes_format import TRACKED_CLASSES

MOVING_SPEED = 0.2  # m/s; faster objects get their class's "moving" attribute
ATTRIBUTES = {  # class -> (attribute when moving, attribute when not)
    'car': ('vehicle.moving', 'vehicle.parked'),
    'truck': ('vehicle.moving', 'vehicle.parked'),
    'bus': ('vehicle.moving', 'vehicle.stopped'),
    'trailer': ('vehicle.moving', 'vehicle.parked'),
    'construction_vehicle': ('vehicle.moving', 'vehicle.parked'),
    'bicycle': ('cycle.with_rider', 'cycle.without_rider'),
    'motorcycle': ('cycle.with_rider', 'cycle.without_rider'),
    'pedestrian': ('pedestrian.moving', 'pedestrian.standing'),
    'traffic_cone': ('', ''),
    'barrier': ('', ''),
}
CAMERA_ONLY_META = {
    'use_camera': True,
    'use_lidar': False,
    'use_radar': False,
    'use_map': False,
    'use_external': False,
}
MAX_BOXES = 500  # of a sample, by the devkit's rules
SHORTEST_QUATERNION = 1e-3  # the devkit scales quaternions to length 1; one near 0 gives no direction


@dataclass(frozen=True)
class SubmissionKind:
    """What tells the two kinds of nuScenes submissions apart.

    Attributes:
        boxes: what the boxes are, in the plural.
        name: key of a box's class.
        score: key of a box's score.
        classes: that boxes may have.
        further: key that only boxes of this kind have.
        remedy: what to do with a file of the other kind.
    """

    boxes: str
    name: str
    score: str
    classes: tuple[str, ...]
    further: str
    remedy: str

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys that every box needs."""
        return ('sample_token', 'translation', 'size', 'rotation', 'velocity', self.name, self.score, self.further)


DETECTIONS = SubmissionKind(
    'detections',
    'detection_name',
    'detection_score',
    tuple(DETECTION_NAMES),
    'attribute_name',
    'tools/track.py makes tracks of detections',
)
TRACKS = SubmissionKind(
    'tracks',
    'tracking_name',
    'tracking_score',
    TRACKED_CLASSES,
    'tracking_id',
    'tools/evaluate.py --task tracking scores tracks, tools/visualize.py --tracks draws them',
)


@dataclass(frozen=True)
class Submission:
    """A submission that was read from a file and checked.

    Attributes:
        meta: which sensors and data were used, by nuScenes' keys.
        results: sample token -> entries.
    """

    meta: dict
    results: dict[str, list[dict]]


def detections_to_results(pred_instances_3d: InstanceData | dict, meta: dict, classes: list[str]) -> list[dict]:
    """Turn the detections of a sample into submission entries, in the order of their scores.

    Boxes beyond the detection range of their class are left out.

    Args:
        pred_instances_3d: ``bboxes_3d`` (LiDAR frame), ``scores_3d`` and ``labels_3d``.
        meta: ``sample_idx`` (the sample token), ``lidar2ego`` and ``ego2global`` (4, 4).
        classes: class names by label.
    """
    detection = {
        key: pred_instances_3d[key].cpu()
        if hasattr(pred_instances_3d[key], 'cpu')
        else pred_instances_3d[key].to('cpu')
        for key in ('bboxes_3d', 'scores_3d', 'labels_3d')
    }
    boxes, _ = output_to_nusc_box(detection)
    info = {'lidar_points': {'lidar2ego': meta['lidar2ego']}, 'ego2global': meta['ego2global']}
    boxes = lidar_nusc_box_to_global(info, boxes, classes, config_factory('detection_cvpr_2019'))
    return [
        {
            'sample_token': meta['sample_idx'],
            'translation': box.center.tolist(),
            'size': box.wlh.tolist(),
            'rotation': box.orientation.elements.tolist(),
            'velocity': box.velocity[:2].tolist(),
            'detection_name': classes[box.label],
            'detection_score': float(box.score),
            'attribute_name': attribute_of(classes[box.label], float(np.hypot(*box.velocity[:2]))),
        }
        for box in boxes[:MAX_BOXES]
    ]


def attribute_of(name: str, speed: float) -> str:
    """Return the attribute of an object of a class at a speed in m/s, or '' for classes without attributes."""
    moving, still = ATTRIBUTES[name]
    return moving if speed > MOVING_SPEED else still


def refuse_existing(*paths: str | Path) -> None:
    """Refuse to replace scores or submissions of an earlier run.

    Raises:
        FileExistsError: one of the files exists already.
    """
    for path in paths:
        if Path(path).exists():
            raise FileExistsError(f'{path} exists: replace it with --overwrite, or write elsewhere with --out')


def write_results(
    results: dict[str, list[dict]], path: str | Path, scores: Sequence[str] = (), meta: dict | None = None
) -> None:
    """Write a submission.

    Args:
        results: sample token -> entries.
        path: of the JSON file.
        scores: names of files beside it that hold scores of a submission; with a submission that is replaced its
            scores are deleted, so that they are not taken for those of the new one.
        meta: which sensors and data were used, by nuScenes' keys; None for cameras alone.
    """
    if Path(path).exists():
        for name in scores:
            Path(path).with_name(name).unlink(missing_ok=True)
    with atomic_write(path) as file:
        file.write(json.dumps({'meta': CAMERA_ONLY_META if meta is None else meta, 'results': results}).encode())


def check_results(results: dict[str, list[dict]]) -> None:
    """Refuse detections that are to be written to a submission and that nuScenes' server would refuse.

    Raises:
        InputError: naming the sample, the box and what is wrong with it.
    """
    for token, entries in results.items():
        _check_entries(f'detections of sample {token}', token, entries, DETECTIONS)


def load_results(path: str | Path) -> dict[str, list[dict]]:
    """Read and check a submission of detections, and return its entries by sample token; see :func:`read_submission`.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: the file is not a detection submission.
    """
    return read_submission(path, DETECTIONS).results


def load_tracks(path: str | Path) -> dict[str, list[dict]]:
    """Read and check a submission of tracks, and return its entries by sample token; see :func:`read_submission`.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: the file is not a tracking submission.
    """
    return read_submission(path, TRACKS).results


def read_submission(path: str | Path, kind: SubmissionKind) -> Submission:
    """Read and check a submission.

    Args:
        path: of the JSON file.
        kind: which one it must be, :data:`DETECTIONS` or :data:`TRACKS`.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: the file is no submission of that kind.
    """
    writer = 'tools/test.py --out' if kind is DETECTIONS else 'tools/track.py --out'
    if not Path(path).is_file():
        raise FileNotFoundError(f'results file {path} does not exist; {writer} writes one')
    try:
        content = json.loads(Path(path).read_text(), object_pairs_hook=_refuse_repeated_keys)
    except (ValueError, RecursionError) as error:
        raise InputError(f'{path} is not JSON: {error}') from None
    if not isinstance(content, dict) or not {'meta', 'results'} <= set(content):
        raise InputError(f"{path} is no nuScenes submission: it needs 'meta' and 'results' at the top")
    if not isinstance(content['results'], dict):
        raise InputError(f"{path} is no nuScenes submission: 'results' must be an object, sample token -> boxes")
    for token, entries in content['results'].items():
        _check_entries(f'{path}: sample {token}', token, entries, kind)
    return Submission(content['meta'], content['results'])


def _refuse_repeated_keys(pairs: list[tuple]) -> dict:
    """Make a dict of a JSON object and refuse repeated keys, of which the parser would silently keep the last."""
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise InputError(f'key {next(key for key in keys if keys.count(key) > 1)!r} is given twice')
    return content


def _check_entries(where: str, token: str, entries: list[dict], kind: SubmissionKind) -> None:
    """Refuse entries of a sample that the devkit would stumble over or misread; velocities may be NaN (unknown)."""
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f'{where} has no list of boxes, each an object')
    if len(entries) > MAX_BOXES:
        raise InputError(f'{where} has {len(entries)} boxes, at most {MAX_BOXES} are allowed')
    other = TRACKS if kind is DETECTIONS else DETECTIONS
    for number, entry in enumerate(entries):
        if kind.name not in entry and other.name in entry:
            raise InputError(f'{where}: box {number} is of {other.boxes}, not of {kind.boxes}: {other.remedy}')
        missing = [key for key in kind.keys if key not in entry]
        if missing:
            raise InputError(f'{where}: box {number} lacks {", ".join(missing)}')
        if entry['sample_token'] != token:
            raise InputError(f'{where}: box {number} has sample_token {entry["sample_token"]!r}, another one')
        if entry[kind.name] not in kind.classes:
            raise InputError(
                f'{where}: box {number} is of class {entry[kind.name]!r}; the classes are {", ".join(kind.classes)}'
            )
    _check_numbers(where, entries, kind.score)
    if kind is DETECTIONS:
        _check_attributes(where, entries)
    else:
        _check_ids(where, entries)


def _check_attributes(where: str, entries: list[dict]) -> None:
    """Refuse attributes that nuScenes does not have."""
    for number, entry in enumerate(entries):
        if entry['attribute_name'] not in ('', *ATTRIBUTE_NAMES):
            raise InputError(
                f'{where}: box {number} has attribute_name {entry["attribute_name"]!r}; '
                f"the attributes are '' and {', '.join(ATTRIBUTE_NAMES)}"
            )


def _check_ids(where: str, entries: list[dict]) -> None:
    """Refuse ids that are no text, or that two boxes of a sample share."""
    seen: set[str] = set()
    for number, entry in enumerate(entries):
        name = entry['tracking_id']
        if not isinstance(name, str) or not name:
            raise InputError(f'{where}: box {number} has tracking_id {name!r}; an id is a text that is not empty')
        if name in seen:
            raise InputError(f'{where}: box {number} has tracking_id {name!r}, as a box before it; a track has one')
        seen.add(name)


def _check_numbers(where: str, entries: list[dict], score: str) -> None:
    """Refuse places, sizes, rotations, velocities and scores that no box can have."""

    def column(key: str) -> list:
        return [entry[key] for entry in entries]

    def named(key: str) -> Callable[[int], str]:
        return lambda number: f'{where}: {key} of box {number}'

    finite_rows(column('translation'), (3,), named('translation'))
    sizes = finite_rows(column('size'), (3,), named('size'))
    require_all((sizes > 0).all(1), column('size'), named('size'), 'is not of positive size')
    rotations = finite_rows(column('rotation'), (4,), named('rotation'))
    is_rotation = np.linalg.norm(rotations, axis=1) > SHORTEST_QUATERNION
    require_all(
        is_rotation, column('rotation'), named('rotation'), 'is no rotation: a quaternion w, x, y, z has length 1'
    )
    finite_rows(column('velocity'), (2,), named('velocity'), unknown_as_nan=True)
    scores = finite_rows(column(score), (), named(score))
    require_all((scores >= 0) & (scores <= 1), column(score), named(score), 'is not in [0, 1]')
