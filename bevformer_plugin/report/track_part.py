"""The part about tracks, if a submission of tracks is given beside the detections."""

import tempfile
from dataclasses import dataclass

from bevformer_plugin.errors import InputError
from bevformer_plugin.evaluation import evaluate_tracks, load_results, load_tracks
from bevformer_plugin.nuscenes_format import TRACKED_CLASSES

from .blocks import Cell, Part, Row, Table, class_title, count_text, number_cell

SHARES = {'AMOTA': 'amota', 'AMOTP': 'amotp', 'MOTA': 'mota', 'recall': 'recall'}  # column -> the devkit's name
COUNTS = {'identity switches': 'ids', 'fragmentations': 'frag'}


@dataclass(frozen=True)
class TrackAnalysis:
    """Tracks made of a submission.

    Attributes:
        path: the submission of tracks.
        entries: sample token -> entries.
        summary: the devkit's scores, see :func:`evaluate_tracks`.
    """

    path: str
    entries: dict[str, list[dict]]
    summary: dict


def analyse_tracks(
    path: str, results: str, root: str, version: str, split: str | None, infos: str | None, true_boxes: str
) -> TrackAnalysis:
    """Read and score tracks.

    Args:
        path: the submission of tracks.
        results: the submission of detections that they were made of.
        root, version, split, infos, true_boxes: see :func:`evaluate_tracks`.

    Raises:
        InputError: a box of the tracks is not one of the detections; or as :func:`evaluate_tracks`.
    """
    entries = load_tracks(path)
    _require_made_of(entries, path, results)
    with tempfile.TemporaryDirectory() as folder:  # for files of scores, which a report does not leave
        summary = evaluate_tracks(path, root, version, split, infos, folder, true_boxes)
    return TrackAnalysis(path, entries, summary)


def _require_made_of(entries: dict[str, list[dict]], path: str, results: str) -> None:
    """Refuse tracks a box of which lies where the detections have none of its class."""
    detections = load_results(results)
    for token, tracked in entries.items():
        detected = {(box['detection_name'], *box['translation']) for box in detections.get(token, [])}
        for box in tracked:
            if (box['tracking_name'], *box['translation']) not in detected:
                raise InputError(
                    f'{path}: {results} has no {box["tracking_name"]} at {box["translation"]} in sample {token}: give '
                    'the tracks that tools/track.py made of these detections'
                )


def track_part(tracks: TrackAnalysis) -> Part:
    """Return the part about tracks."""
    of_classes, present = tracks.summary['label_metrics'], tracks.summary['classes_present']
    keys = (*SHARES.values(), *COUNTS.values())
    rows = [
        Row(class_title(name), _cells({key: of_classes[key][name] for key in keys}))
        for name in TRACKED_CLASSES
        if name in present
    ]
    total = Row('all', _cells({key: tracks.summary[key] for key in keys}), kind='total')
    number = len({entry['tracking_id'] for entries in tracks.entries.values() for entry in entries})
    lead = (
        f'{count_text(number)} tracks of {tracks.path}, scored by the devkit. Higher is better for AMOTA and MOTA, '
        'lower for AMOTP (metres between centres) and the counts.'
    )
    table = Table('tracks', ('class', *SHARES, *COUNTS), (*rows, total))
    return Part('tracks', 'Tracks', lead, (table,))


def _cells(values: dict[str, float]) -> tuple[Cell, ...]:
    shares = (number_cell(values[key]) for key in SHARES.values())
    return (*shares, *(number_cell(values[key], 0) for key in COUNTS.values()))
