"""Greedy tracking of boxes by their centres and velocities, as CenterPoint does it (Yin et al., arXiv 2006.11275)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

GATES = {  # metres between a centre, moved back, and the track that it may belong to; of CenterPoint's public tracker
    'bicycle': 3.0,
    'bus': 5.5,
    'car': 4.0,
    'motorcycle': 13.0,
    'pedestrian': 1.0,
    'trailer': 3.0,
    'truck': 4.0,
}
MAX_MISSED = 2  # frames in a row without a box that a track outlives; the public tracker says max_age=3


@dataclass
class Track:
    """An object that is being followed.

    Attributes:
        name: its class.
        centre: (2,) x, y in the global frame, metres; while it is missed, where its velocity takes it.
        velocity: (2,) m/s of its last box.
        missed: frames since its last box.
        entries: frame and place in the frame's list of each of its boxes.
        score: highest of its boxes' scores.
    """

    name: str
    centre: np.ndarray
    velocity: np.ndarray
    missed: int = 0
    entries: list[tuple[int, int]] = field(default_factory=list)
    score: float = 0.0


def track_scene(timestamps: Sequence[float], frames: Sequence[list[dict]]) -> list[list[int | None]]:
    """Give the boxes of one scene the numbers of the tracks that they belong to.

    In each frame, from the highest score on, a box is moved back by its velocity and joins the nearest track of its
    class within :data:`GATES` that no other box has joined; without one it begins a track. A track that is missed for
    more than :data:`MAX_MISSED` frames ends. A velocity that is not known (NaN) counts as 0.

    Args:
        timestamps: of the frames in seconds, rising.
        frames: entries of a submission of detections, for each frame.

    Returns:
        For each frame the number of each entry's track, from 1 on, the track with the highest score first; None for
        entries of classes that nuScenes does not track.
    """
    living: list[Track] = []
    ended: list[Track] = []
    for index, entries in enumerate(frames):
        seconds = timestamps[index] - timestamps[index - 1] if index else 0.0
        living = _next_frame(living, ended, entries, index, seconds)
    tracks = sorted([*ended, *living], key=lambda track: (-track.score, track.entries))
    numbers: list[list[int | None]] = [[None] * len(entries) for entries in frames]
    for number, track in enumerate(tracks, start=1):
        for frame, place in track.entries:
            numbers[frame][place] = number
    return numbers


def _next_frame(
    living: list[Track], ended: list[Track], entries: list[dict], index: int, seconds: float
) -> list[Track]:
    """Let the boxes of a frame join tracks, and return the tracks that live on; others are added to ``ended``."""
    centres = np.array([entry['translation'][:2] for entry in entries]).reshape(-1, 2)
    velocities = np.nan_to_num(np.array([entry['velocity'] for entry in entries], dtype=float).reshape(-1, 2))
    scores = np.array([entry['detection_score'] for entry in entries])
    joined = _join(living, entries, centres - seconds * velocities, np.argsort(-scores, kind='stable'))
    kept: list[Track] = []
    found = set(joined.values())
    for number, track in enumerate(living):
        if number in found:
            kept.append(track)
        elif track.missed < MAX_MISSED:
            track.missed += 1
            track.centre = track.centre + seconds * track.velocity
            kept.append(track)
        else:
            ended.append(track)
    for place, entry in enumerate(entries):
        if entry['detection_name'] not in GATES:
            continue
        if place in joined:
            track = living[joined[place]]
        else:
            track = Track(entry['detection_name'], centres[place], velocities[place])
            kept.append(track)
        track.centre, track.velocity, track.missed = centres[place], velocities[place], 0
        track.entries.append((index, place))
        track.score = max(track.score, float(scores[place]))
    return kept


def _join(living: list[Track], entries: list[dict], places: np.ndarray, order: np.ndarray) -> dict[int, int]:
    """Return which entry joins which track, by their positions in the lists.

    Args:
        living: the tracks.
        entries: of the frame.
        places: (n, 2) where the entries were in the frame before, metres.
        order: (n,) the entries, the one that chooses first at the beginning.
    """
    joined: dict[int, int] = {}
    for name, gate in GATES.items():
        tracks = [number for number, track in enumerate(living) if track.name == name]
        rows = [int(row) for row in order if entries[row]['detection_name'] == name]
        if not tracks or not rows:
            continue
        centres = np.stack([living[number].centre for number in tracks])
        distances = np.linalg.norm(places[rows][:, None] - centres, axis=2)
        for row, to_tracks in zip(rows, distances, strict=True):
            nearest = int(to_tracks.argmin())
            if to_tracks[nearest] <= gate:
                joined[row] = tracks[nearest]
                distances[:, nearest] = np.inf  # also in the rows that follow, which are views of the same array
    return joined
