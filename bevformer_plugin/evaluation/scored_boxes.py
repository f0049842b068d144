"""True and predicted boxes of a submission as arrays, through the devkit's filters, with what slices need of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


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
    raise NotImplementedError
