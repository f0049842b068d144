"""Which annotations get one of the ten detection classes, by the name of their category."""

from collections import Counter
from collections.abc import Iterable

from nuscenes.eval.detection.utils import category_to_detection_name
from nuscenes.utils.color_map import get_colormap

from bevformer_plugin.errors import InputError

NAMED_CATEGORIES = 10  # a message names so many categories at most


def describe_unmapped_categories(annotations: Iterable[dict]) -> list[str]:
    """Write lines for the log about annotations that get no box, because their category is of no detection class.

    Args:
        annotations: rows of ``sample_annotation``, each with its ``category_name``.

    Raises:
        InputError: there are annotations, and none of their categories belongs to a class.
    """
    counts = Counter(row['category_name'] for row in annotations)
    unmapped = Counter({name: count for name, count in counts.items() if category_to_detection_name(name) is None})
    if counts and len(unmapped) == len(counts):
        raise InputError(
            f'none of the {counts.total()} annotations has a category of the ten detection classes; theirs are '
            f'{_counted(unmapped)}: name categories in category.json as nuScenes does, such as vehicle.car or '
            'human.pedestrian.adult'
        )
    known = sum(count for name, count in unmapped.items() if name in get_colormap())
    unknown = Counter({name: count for name, count in unmapped.items() if name not in get_colormap()})
    lines = []
    if known:
        lines.append(f"{known} annotations are of nuScenes' categories outside the ten classes and get no box.")
    if unknown:
        lines.append(
            f'{unknown.total()} annotations get no box, because nuScenes has no category of their names: '
            f'{_counted(unknown)}'
        )
    return lines


def _counted(counts: Counter) -> str:
    """List the most frequent names with their counts."""
    named = ', '.join(f'{name} ({count})' for name, count in counts.most_common(NAMED_CATEGORIES))
    return named + (', ...' if len(counts) > NAMED_CATEGORIES else '')
