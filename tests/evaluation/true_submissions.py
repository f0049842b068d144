"""Submissions that find every true box, and faults planted in them."""

import math
from collections.abc import Callable, Iterable

from nuscenes import NuScenes
from nuscenes.eval.detection.utils import category_to_detection_name
from pyquaternion import Quaternion

from tests.helpers.annotations import annotations_as_results, has_points

Results = dict[str, list[dict]]


def true_submission(tables: NuScenes, tokens: Iterable[str]) -> Results:
    """The annotations with points, with their attributes, and velocity 0 where it is not known."""
    results = annotations_as_results(tables, tokens)
    for token, entries in results.items():
        rows = [tables.get('sample_annotation', name) for name in tables.get('sample', token)['anns']]
        rows = [row for row in rows if category_to_detection_name(row['category_name']) and has_points(row)]
        for row, entry in zip(rows, entries, strict=True):
            names = [tables.get('attribute', name)['name'] for name in row['attribute_tokens']]
            entry['attribute_name'] = names[0] if names else ''
            entry['velocity'] = [0.0 if math.isnan(value) else value for value in entry['velocity']]
    return results


def changed(results: Results, change: Callable[[dict], dict]) -> Results:
    """Every box with the fields that ``change`` returns for it."""
    return {token: [{**entry, **change(entry)} for entry in entries] for token, entries in results.items()}


def yaws_turned(results: Results) -> Results:
    half_turn = Quaternion(axis=(0, 0, 1), degrees=180)
    return changed(results, lambda box: {'rotation': list((half_turn * Quaternion(box['rotation'])).elements)})


def sizes_swapped(results: Results) -> Results:
    return changed(results, lambda box: {'size': [box['size'][1], box['size'][0], box['size'][2]]})


def cars_called_pedestrians(results: Results) -> Results:
    """The devkit scores pedestrians to 40 m only, so farther ones are left out."""
    names = {'car': 'pedestrian'}
    return changed(results, lambda box: {'detection_name': names.get(box['detection_name'], box['detection_name'])})


def pedestrians_called_cars(results: Results) -> Results:
    """The devkit scores cars to 50 m, so there are false ones where pedestrians do not count."""
    names = {'pedestrian': 'car'}
    return changed(results, lambda box: {'detection_name': names.get(box['detection_name'], box['detection_name'])})


def each_box_twice(results: Results) -> Results:
    return {token: entries + entries for token, entries in results.items()}


def shifted(results: Results) -> Results:
    """Every box 1.5 m further along the global x axis."""
    return changed(results, lambda box: {'translation': [box['translation'][0] + 1.5, *box['translation'][1:]]})


def velocities_off(results: Results) -> Results:
    return changed(results, lambda box: {'velocity': [box['velocity'][0] + 0.8, box['velocity'][1]]})


def every_other_box(results: Results) -> Results:
    return {token: entries[::2] for token, entries in results.items()}
