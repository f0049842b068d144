"""Detections as a nuScenes submission: global frame, one list of boxes per sample."""

import errno
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from mmdet3d.evaluation.metrics.nuscenes_metric import lidar_nusc_box_to_global, output_to_nusc_box
from nuscenes.eval.detection.config import config_factory
from nuscenes.eval.detection.constants import DETECTION_NAMES

from bevformer_plugin.datasets.infos import atomic_write

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
CAMERA_ONLY = {'use_camera': True, 'use_lidar': False, 'use_radar': False, 'use_map': False, 'use_external': False}
MAX_BOXES = 500


def detections_to_results(pred_instances_3d, meta: dict, classes: list[str]) -> list[dict]:
    """One sample's detections as submission entries, in score order; boxes out of their class's range are left out.

    Args:
        pred_instances_3d: ``bboxes_3d`` (LiDAR frame), ``scores_3d``, ``labels_3d``.
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
    """The attribute of a class at a speed in m/s; '' for classes without attributes."""
    moving, still = ATTRIBUTES[name]
    return moving if speed > MOVING_SPEED else still


def refuse_existing(*paths: str | Path) -> None:
    """Refuse to replace scores or submissions of an earlier run.

    Raises:
        FileExistsError: naming the first file that exists.
    """
    for path in paths:
        if Path(path).exists():
            raise FileExistsError(f'{path} exists: replace it with --overwrite, or write elsewhere with --out')


def refuse_unwritable(path: str | Path) -> None:
    """Make the folder of a file that is written at the end of a long run, and try to write there.

    Raises:
        OSError: naming the file, if it cannot be written.
    """
    folder = Path(path).parent
    try:
        if Path(path).is_dir():
            raise IsADirectoryError(errno.EISDIR, 'it is a folder')
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OSError(f'{path} cannot be written ({error.strerror}): write elsewhere with --out') from error


def write_results(results: dict[str, list[dict]], path: str | Path) -> None:
    """Write a submission: sample token -> entries."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(json.dumps({'meta': CAMERA_ONLY, 'results': results}).encode())


def load_results(path: str | Path) -> dict[str, list[dict]]:
    """Read and check a submission.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a detection submission.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'results file {path} does not exist; tools/test.py --out writes one')
    try:
        content = json.loads(Path(path).read_text())
    except ValueError as error:
        raise ValueError(f'{path} is not JSON: {error}') from None
    if not isinstance(content, dict) or not {'meta', 'results'} <= set(content):
        raise ValueError(f"{path} is no nuScenes submission: it needs 'meta' and 'results' at the top")
    for token, entries in content['results'].items():
        if len(entries) > MAX_BOXES:
            raise ValueError(f'{path}: sample {token} has {len(entries)} boxes, at most {MAX_BOXES} are allowed')
        _check_entries(path, token, entries)
    return content['results']


def _check_entries(path: str | Path, token: str, entries: Iterable[dict]) -> None:
    for entry in entries:
        if entry.get('detection_name') not in DETECTION_NAMES:
            raise ValueError(
                f'{path}: sample {token} has a box of class {entry.get("detection_name")!r}; '
                f'the classes are {", ".join(DETECTION_NAMES)}'
            )
        numbers = [*entry['translation'], *entry['size'], *entry['rotation'], entry['detection_score']]
        if not np.isfinite(numbers).all() or min(entry['size']) <= 0:
            raise ValueError(f'{path}: sample {token} has a box that is not finite or not of positive size: {entry}')
