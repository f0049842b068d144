"""The part about tracks, if a submission of tracks is given beside the detections."""

import tempfile
from dataclasses import dataclass

from bevformer_plugin.evaluation import evaluate_tracks, load_tracks
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
    path: str, root: str, version: str, split: str | None, infos: str | None, true_boxes: str
) -> TrackAnalysis:
    """Read and score tracks; arguments and errors are those of :func:`evaluate_tracks`."""
    entries = load_tracks(path)
    with tempfile.TemporaryDirectory() as folder:  # for files of scores, which a report does not leave
        summary = evaluate_tracks(path, root, version, split, infos, folder, true_boxes)
    return TrackAnalysis(path, entries, summary)


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
