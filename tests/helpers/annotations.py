"""Annotations of a dataset's tables, and as what a detector would submit that found them all."""

from collections.abc import Callable, Iterable

from nuscenes import NuScenes
from nuscenes.eval.detection.utils import category_to_detection_name


def has_points(annotation: dict) -> bool:
    """Whether a LiDAR or radar point lies in the box; of an annotation in the tables or an instance in the infos."""
    return annotation['num_lidar_pts'] + annotation['num_radar_pts'] > 0


def annotations_as_results(
    tables: NuScenes, tokens: Iterable[str], counts: Callable[[dict], bool] = has_points
) -> dict[str, list[dict]]:
    """Return the annotations of the ten classes as results by sample, with scores that fall within each sample.

    A velocity that the tables do not tell is NaN.

    Args:
        tables: where they are.
        tokens: of the samples.
        counts: which annotations become results.
    """
    results: dict[str, list[dict]] = {}
    for token in tokens:
        results[token] = []
        for annotation_token in tables.get('sample', token)['anns']:
            annotation = tables.get('sample_annotation', annotation_token)
            name = category_to_detection_name(annotation['category_name'])
            if name is None or not counts(annotation):
                continue
            results[token].append(
                {
                    **{key: annotation[key] for key in ('sample_token', 'translation', 'size', 'rotation')},
                    'velocity': tables.box_velocity(annotation_token)[:2].tolist(),
                    'detection_name': name,
                    'detection_score': 1 / (1 + len(results[token])),
                    'attribute_name': '',
                }
            )
    return results
