"""Scores of slices of the boxes: by distance, speed, camera seam, frame, weather, place, visibility and points."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from nuscenes.eval.detection.constants import DETECTION_NAMES
from tqdm import tqdm

from .detection_scores import AT_TP_DISTANCE, UNDEFINED_ERRORS, average_precision, precision_curve
from .matching import DISTANCES, ERRORS, UNMATCHED, Matches
from .scored_boxes import BoxTable, Keyframes, ScoredBoxes

RINGS = (0, 10, 20, 30, 40, 50)  # metres; the devkit's ranges end at 50 m
SPEEDS = (0, 0.2, 2, 5, 10)  # m/s; boxes slower than 0.2 m/s stand
POINTS = (0, 1, 6, 21, 101)  # LiDAR points
VISIBILITY = ('unknown', '0-40 %', '40-60 %', '60-80 %', '80-100 %')  # by the level in the tables
FIRST_FRAMES = 3  # keyframes with a slice of their own


@dataclass(frozen=True)
class Slice:
    """Boxes that have something in common.

    Attributes:
        name: such as '10-20 m'.
        true_counts: (10,) int, true boxes of each class.
        predicted_counts: (10,) int, predicted boxes of each class, by their matches at 2 m; None where the property
            is known of true boxes only.
        aps: (10, 4) average precision at ``DISTANCES``, NaN for classes without true boxes in the slice; None as
            above.
        mean_ap: mean over the classes with true boxes in the slice and over the distances; NaN without any, None as
            above.
        recalls: (10,) share of true boxes matched at 2 m at any score, NaN for classes without true boxes.
        recall: the same over all classes together; NaN without true boxes.
        mean_errors: (5,) errors in the order of ``ERRORS`` of the boxes matched at 2 m: the mean over the classes of
            each class's mean over its boxes, NaN where there are none.
    """

    name: str
    true_counts: np.ndarray
    predicted_counts: np.ndarray | None
    aps: np.ndarray | None
    mean_ap: float | None
    recalls: np.ndarray
    recall: float
    mean_errors: np.ndarray


@dataclass(frozen=True)
class Slicing:
    """One way of cutting all boxes into slices: every true box is in exactly one slice.

    Attributes:
        name: 'distance', 'speed', 'camera seam', 'frame of the scene', 'conditions', 'location', 'visibility' or
            'LiDAR points'.
        rule: a sentence that says how boxes are assigned.
        of_truth_only: the property is known of true boxes only, so slices have recall and errors but no AP.
        slices: in their natural order; empty slices are kept.
    """

    name: str
    rule: str
    of_truth_only: bool
    slices: tuple[Slice, ...]


@dataclass(frozen=True)
class _Assignment:
    """Slices of all boxes, before they are scored.

    Attributes:
        name, rule: see :class:`Slicing`.
        slice_names: names of the slices.
        truth: (n,) int, slice of each true box.
        predictions: (m,) int, slice of each predicted box by what is known of itself; None if nothing is.
    """

    name: str
    rule: str
    slice_names: Sequence[str]
    truth: np.ndarray
    predictions: np.ndarray | None


def slicings(boxes: ScoredBoxes, matches: Matches, progress: bool = True) -> list[Slicing]:
    """Compute the scores of all slices.

    A predicted box that matches a true one (at the distance in question) is in the slice of the true one; any other is
    in the slice of its own distance, speed or direction, or that of its frame.
    """
    assignments = [
        _by_distance(boxes),
        _by_speed(boxes),
        _by_seam(boxes),
        *(_by_frame(boxes, *how) for how in (_of_scene(boxes.keyframes), *_of_conditions(boxes.keyframes))),
        _by_visibility(boxes),
        _by_points(boxes),
    ]
    return [
        _score(boxes, matches, assignment) for assignment in tqdm(assignments, desc='slices', disable=not progress)
    ]


def conditions_of(description: str) -> str:
    """Name time of day and weather of a scene by the words 'night' and 'rain' in its description."""
    words = description.lower()
    return ('night' if 'night' in words else 'day') + (', rain' if 'rain' in words else '')


def _by_distance(boxes: ScoredBoxes) -> _Assignment:
    names = [f'{low}-{high} m' for low, high in pairwise(RINGS)]

    def ring(table: BoxTable) -> np.ndarray:
        return np.digitize(table.ego_distances, RINGS[1:-1])

    rule = 'Distance of the centre from the vehicle, seen from above.'
    return _Assignment('distance', rule, names, ring(boxes.truth), ring(boxes.predictions))


def _by_speed(boxes: ScoredBoxes) -> _Assignment:
    names = [*_ranges(SPEEDS, ' m/s'), 'unknown']

    def speed(table: BoxTable) -> np.ndarray:
        return np.digitize(np.linalg.norm(table.velocities, axis=1), SPEEDS[1:])  # NaN is beyond the last

    def slice_of(table: BoxTable) -> np.ndarray:
        unknown = np.isnan(table.velocities).any(axis=1)
        return np.where(unknown, len(names) - 1, speed(table))

    rule = 'Speed of the object; it is unknown of objects annotated in a single keyframe.'
    return _Assignment('speed', rule, names, slice_of(boxes.truth), slice_of(boxes.predictions))


def _by_seam(boxes: ScoredBoxes) -> _Assignment:
    rule = 'How many cameras see the centre, or would if their images were 5 degrees wider on both sides.'
    names = ('no camera', 'one camera', 'seam of cameras')
    truth, predictions = (np.minimum(table.cameras, 2) for table in (boxes.truth, boxes.predictions))
    return _Assignment('camera seam', rule, names, truth, predictions)


def _by_frame(boxes: ScoredBoxes, name: str, rule: str, names: Sequence[str], of_frame: np.ndarray) -> _Assignment:
    """Assign boxes by their keyframes, whose slices are ``of_frame`` (frames,)."""
    return _Assignment(name, rule, names, of_frame[boxes.truth.frames], of_frame[boxes.predictions.frames])


def _of_scene(keyframes: Keyframes) -> tuple[str, str, Sequence[str], np.ndarray]:
    names = [*(str(number) for number in range(FIRST_FRAMES)), f'{FIRST_FRAMES} and later']
    rule = 'Number of the keyframe in its scene, from 0: at 0 the model has no memory.'
    return 'frame of the scene', rule, names, np.minimum(keyframes.positions, FIRST_FRAMES)


def _of_conditions(keyframes: Keyframes) -> list[tuple[str, str, Sequence[str], np.ndarray]]:
    """Return the slices of keyframes by what is known of their scenes: conditions, then locations."""
    rule = "By the words 'night' and 'rain' in the description of the scene; it is day where neither is said."
    conditions = ('day', 'day, rain', 'night', 'night, rain')
    of_scene = np.array([conditions.index(conditions_of(text)) for text in keyframes.descriptions])
    places = sorted(set(keyframes.locations))
    place_of_scene = np.array([places.index(place) for place in keyframes.locations])
    return [
        ('conditions', rule, conditions, of_scene[keyframes.scenes]),
        ('location', 'Where the scene was recorded.', places, place_of_scene[keyframes.scenes]),
    ]


def _by_visibility(boxes: ScoredBoxes) -> _Assignment:
    rule = "Share of the true object's pixels that is visible over all cameras, by the tables."
    return _Assignment('visibility', rule, VISIBILITY, boxes.truth.visibility, None)


def _by_points(boxes: ScoredBoxes) -> _Assignment:
    names = [str(low) if high == low + 1 else f'{low}-{high - 1}' for low, high in pairwise(POINTS)]
    rule = 'LiDAR points in the true box; boxes with 0 have radar points, or count by another rule.'
    slices = np.digitize(boxes.truth.lidar_points, POINTS[1:])
    return _Assignment('LiDAR points', rule, [*names, f'more than {POINTS[-1] - 1}'], slices, None)


def _ranges(edges: Sequence[float], unit: str) -> list[str]:
    """Name the ranges between edges, the last of which has no end."""
    names = [f'{low:g}-{high:g}{unit}' for low, high in pairwise(edges)]
    return [*names, f'{edges[-1]:g}{unit} and more']


def _score(boxes: ScoredBoxes, matches: Matches, assignment: _Assignment) -> Slicing:
    """Score the slices of an assignment."""
    of_prediction = None
    if assignment.predictions is not None:
        matched = matches.truth != UNMATCHED
        of_prediction = np.where(matched, assignment.truth[matches.truth], assignment.predictions)

    def score(number: int, name: str) -> Slice:
        inside = None if of_prediction is None else of_prediction == number
        return _slice(boxes, matches, name, assignment.truth == number, inside)

    slices = tuple(score(number, name) for number, name in enumerate(assignment.slice_names))
    return Slicing(assignment.name, assignment.rule, of_prediction is None, slices)


def _slice(
    boxes: ScoredBoxes, matches: Matches, name: str, truth: np.ndarray, predictions: np.ndarray | None
) -> Slice:
    """Score one slice.

    Args:
        boxes: the submission.
        matches: its matches.
        name: of the slice.
        truth: (n,) bool, true boxes of the slice.
        predictions: (4, m) bool, predicted boxes of the slice at each of ``DISTANCES``; None if they have no AP.
    """
    classes = len(DETECTION_NAMES)
    true_counts = np.bincount(boxes.truth.labels[truth], minlength=classes)
    at_2m = matches.truth[AT_TP_DISTANCE]
    found = np.flatnonzero(at_2m != UNMATCHED)
    found = found[truth[at_2m[found]]]
    found_counts = np.bincount(boxes.predictions.labels[found], minlength=classes)
    recalls = np.where(true_counts > 0, found_counts / np.maximum(true_counts, 1), np.nan)
    aps = predicted_counts = mean_ap = None
    if predictions is not None:
        aps = _aps(boxes, matches, true_counts, predictions)
        mean_ap = _mean(aps[true_counts > 0].ravel())
        predicted_counts = np.bincount(boxes.predictions.labels[predictions[AT_TP_DISTANCE]], minlength=classes)
    return Slice(
        name=name,
        true_counts=true_counts,
        predicted_counts=predicted_counts,
        aps=aps,
        mean_ap=mean_ap,
        recalls=recalls,
        recall=float(found_counts.sum() / true_counts.sum()) if true_counts.sum() else float('nan'),
        mean_errors=_mean_errors(boxes.predictions.labels[found], matches.errors[:, found]),
    )


def _aps(boxes: ScoredBoxes, matches: Matches, true_counts: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Return the average precisions (10, 4) of a slice, see :func:`_slice`."""
    labels = boxes.predictions.labels[matches.order]
    hits, inside = (matches.truth != UNMATCHED)[:, matches.order], predictions[:, matches.order]
    aps = np.full((len(DETECTION_NAMES), len(DISTANCES)), np.nan)
    for label in np.flatnonzero(true_counts):
        for distance in range(len(DISTANCES)):
            which = inside[distance] & (labels == label)
            aps[label, distance] = average_precision(precision_curve(hits[distance, which], int(true_counts[label])))
    return aps


def _mean_errors(labels: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Return the mean errors (5,) over classes of matched boxes, from their labels (k,) and errors (5, k)."""
    means = np.full((len(ERRORS), len(DETECTION_NAMES)), np.nan)
    for label in np.unique(labels):
        undefined = UNDEFINED_ERRORS.get(DETECTION_NAMES[label], ())
        for number, name in enumerate(ERRORS):
            if name not in undefined:
                means[number, label] = _mean(errors[number, labels == label])
    return np.array([_mean(row) for row in means])


def _mean(values: np.ndarray) -> float:
    """Return the mean of the known values, NaN if none is known."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float('nan')
