"""True and predicted boxes of a submission as arrays, after the devkit's filters, with all that slices need."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path

import numpy as np
from nuscenes import NuScenes
from nuscenes.eval.detection.constants import DETECTION_NAMES
from nuscenes.eval.detection.data_classes import DetectionBox
from typing_extensions import Self

from bevformer_plugin.datasets.infos import check_rule, refuse_tables_that_do_not_fit, visibility_level

from .camera_seams import HorizontalView, camera_views, cameras_near
from .devkit_evaluation import SampleDetectionEval, ScoredSamples, find_scored_samples
from .results import load_results


@dataclass(frozen=True)
class Keyframes:
    """The n keyframes that are scored, in the order of the submission.

    Attributes:
        tokens: n sample tokens.
        scenes: (n,) int, index into ``scene_names``.
        positions: (n,) int, number of the keyframe in its scene, from 0.
        scene_names: names of the scenes that have a keyframe.
        descriptions: what the tables say of each of these scenes.
        locations: where each of these scenes was recorded.
    """

    tokens: tuple[str, ...]
    scenes: np.ndarray
    positions: np.ndarray
    scene_names: tuple[str, ...]
    descriptions: tuple[str, ...]
    locations: tuple[str, ...]


@dataclass(frozen=True)
class BoxTable:
    """n boxes in the global frame.

    Attributes:
        frames: (n,) int, index into :attr:`Keyframes.tokens`.
        labels: (n,) int, index into the devkit's ``DETECTION_NAMES``.
        centres: (n, 3) metres.
        ego_distances: (n,) metres from the vehicle, seen from above.
        sizes: (n, 3) width, length, height in metres.
        yaws: (n,) radians, counter-clockwise from the global x axis.
        velocities: (n, 2) m/s, NaN where unknown.
        attributes: (n,) str, '' where there is none.
        scores: (n,), of true boxes -1.
        cameras: (n,) int, how many cameras see the centre or would if their images were 5 degrees wider on both sides;
            heights do not matter.
    """

    frames: np.ndarray
    labels: np.ndarray
    centres: np.ndarray
    ego_distances: np.ndarray
    sizes: np.ndarray
    yaws: np.ndarray
    velocities: np.ndarray
    attributes: np.ndarray
    scores: np.ndarray
    cameras: np.ndarray

    def __len__(self) -> int:
        return len(self.frames)

    def select(self, keep: np.ndarray) -> Self:
        """Return the boxes of an index, or those for which ``keep`` (n,) is True."""
        return replace(self, **{name: values[keep] for name, values in vars(self).items()})


@dataclass(frozen=True)
class TrueBoxTable(BoxTable):
    """n true boxes.

    Attributes:
        tokens: (n,) str, of the annotations.
        visibility: (n,) int, 1 (less than 40 % visible) to 4 (80 % and more), 0 where unknown.
        lidar_points: (n,) int, LiDAR points in the box.
    """

    tokens: np.ndarray
    visibility: np.ndarray
    lidar_points: np.ndarray


@dataclass(frozen=True)
class ScoredBoxes:
    """A submission and the truth that the devkit scores it against.

    Attributes:
        path: the submission.
        split: name of the split.
        true_boxes: rule by which true boxes count.
        keyframes: the samples.
        truth: true boxes after the devkit's filters (range of the class, points, bicycle racks).
        predictions: predicted boxes after these filters, in the devkit's order.
        left_out_truth: true boxes that count by the rule and that the range or a bicycle rack leaves out.
        left_out_predictions: predicted boxes that the range or a bicycle rack leaves out.
    """

    path: str
    split: str
    true_boxes: str
    keyframes: Keyframes
    truth: TrueBoxTable
    predictions: BoxTable
    left_out_truth: TrueBoxTable
    left_out_predictions: BoxTable


def load_scored_boxes(
    results_paths: Sequence[str | Path],
    root: str,
    version: str,
    split: str | None = None,
    infos: str | None = None,
    true_boxes: str = 'points',
) -> list[ScoredBoxes]:
    """Load one or more submissions of the same samples, and the truth, as the devkit's detection evaluation does.

    Args:
        results_paths: the submissions, JSON files.
        root: nuScenes dataroot.
        version: nuScenes version, such as v1.0-trainval.
        split: see :func:`evaluate_results`.
        infos: info file; if it covers a part of the split, the samples of that part are scored.
        true_boxes: which annotated objects count, see :func:`counted_boxes`.

    Returns:
        One for each submission, in the same order.

    Raises:
        FileNotFoundError: a file or folder is missing.
        InputError: see :func:`evaluate_results`.
    """
    check_rule(true_boxes)
    tokens = {str(path): list(load_results(path)) for path in results_paths}
    scored = find_scored_samples(tokens, root, version, split, infos)
    with refuse_tables_that_do_not_fit(scored.nusc, f'split {scored.split}'):
        return [_load(str(path), tokens[str(path)], scored, true_boxes) for path in results_paths]


def _load(path: str, tokens: list[str], scored: ScoredSamples, true_boxes: str) -> ScoredBoxes:
    """Load one submission, see :func:`load_scored_boxes`."""
    tables = scored.nusc
    evaluation = SampleDetectionEval(tables, path, tokens, str(Path(path).parent), true_boxes)
    views = [camera_views(tables, token) for token in tokens]

    def table(boxes: list[DetectionBox]) -> BoxTable:
        return _box_table(boxes, tokens, views)

    def true_table(boxes: list[DetectionBox]) -> TrueBoxTable:
        rows = [evaluation.annotation_of[id(box)] for box in boxes]
        return TrueBoxTable(
            **vars(table(boxes)),
            tokens=np.array([row['token'] for row in rows], dtype=str),
            visibility=np.array([visibility_level(tables, row) for row in rows], dtype=int),
            lidar_points=np.array([row['num_lidar_pts'] for row in rows], dtype=int),
        )

    return ScoredBoxes(
        path=path,
        split=scored.split,
        true_boxes=true_boxes,
        keyframes=_keyframes(tables, tokens),
        truth=true_table(evaluation.gt_boxes.all),
        predictions=table(evaluation.pred_boxes.all),
        left_out_truth=true_table(evaluation.left_out_truth),
        left_out_predictions=table(evaluation.left_out_predictions),
    )


def _keyframes(tables: NuScenes, tokens: list[str]) -> Keyframes:
    """Describe the keyframes of a submission; a keyframe's number in its scene counts all keyframes of the tables."""
    samples = [tables.get('sample', token) for token in tokens]
    scene_tokens = list(dict.fromkeys(sample['scene_token'] for sample in samples))
    scenes = [tables.get('scene', token) for token in scene_tokens]
    of_scene: dict[str, list[dict]] = {token: [] for token in scene_tokens}
    for sample in tables.sample:
        if sample['scene_token'] in of_scene:
            of_scene[sample['scene_token']].append(sample)
    positions = {
        sample['token']: position
        for rows in of_scene.values()
        for position, sample in enumerate(sorted(rows, key=itemgetter('timestamp')))
    }
    return Keyframes(
        tokens=tuple(tokens),
        scenes=np.array([scene_tokens.index(sample['scene_token']) for sample in samples], dtype=int),
        positions=np.array([positions[token] for token in tokens], dtype=int),
        scene_names=tuple(scene['name'] for scene in scenes),
        descriptions=tuple(scene['description'] for scene in scenes),
        locations=tuple(tables.get('log', scene['log_token'])['location'] for scene in scenes),
    )


def _box_table(boxes: list[DetectionBox], tokens: list[str], views: list[list[HorizontalView]]) -> BoxTable:
    """Turn the devkit's boxes into arrays.

    Args:
        boxes: n boxes.
        tokens: of the samples.
        views: of the cameras of each sample.
    """
    index = {token: number for number, token in enumerate(tokens)}
    frames = np.array([index[box.sample_token] for box in boxes], dtype=int)
    centres = np.array([box.translation for box in boxes], dtype=float).reshape(-1, 3)
    cameras = np.zeros(len(boxes), dtype=int)
    for frame, rows in _rows_of_frames(frames):
        cameras[rows] = cameras_near(centres[rows], views[frame])
    return BoxTable(
        frames=frames,
        labels=np.array([DETECTION_NAMES.index(box.detection_name) for box in boxes], dtype=int),
        centres=centres,
        ego_distances=np.array([box.ego_dist for box in boxes], dtype=float),
        sizes=np.array([box.size for box in boxes], dtype=float).reshape(-1, 3),
        yaws=_yaws(np.array([box.rotation for box in boxes], dtype=float).reshape(-1, 4)),
        velocities=np.array([box.velocity for box in boxes], dtype=float).reshape(-1, 2),
        attributes=np.array([box.attribute_name for box in boxes], dtype=str),
        scores=np.array([box.detection_score for box in boxes], dtype=float),
        cameras=cameras,
    )


def _rows_of_frames(frames: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each frame that has boxes, with the numbers of its boxes."""
    order = np.argsort(frames, kind='stable')
    present, starts = np.unique(frames[order], return_index=True)
    yield from zip(present.tolist(), np.split(order, starts[1:]), strict=bool(len(present)))


def _yaws(quaternions: np.ndarray) -> np.ndarray:
    """Return where the x axes of rotations (n, 4), w, x, y, z, point to, in radians from the global x axis (n,)."""
    w, x, y, z = (quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)).T
    return np.arctan2(2 * (x * y + w * z), 1 - 2 * (y * y + z * z))
