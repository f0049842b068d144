"""Tracks of all scenes of a submission, each on its own and thus in any number of processes."""

import concurrent.futures
from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

from bevformer_plugin.datasets.infos import load_infos
from bevformer_plugin.errors import InputError
from bevformer_plugin.evaluation import DETECTIONS, Submission, read_submission

from .greedy import track_scene

SEPARATOR = '/'  # between the scene's name and the number of the track in an id

Scene = tuple[list[float], list[list[dict]]]


def track_results(results: str | Path, infos: str | Path, workers: int = 1) -> Submission:
    """Follow the objects of a submission of detections through each scene.

    Args:
        results: the submission, a JSON file.
        infos: info file of the samples that the submission was made on, which tells their scenes and times.
        workers: number of processes; the tracks do not depend on it.

    Returns:
        A submission of tracks with all samples of the infos, the scenes in their order there and the samples of a
        scene in time order. Ids are ``scene name/number``; numbers are those of :func:`track_scene`.

    Raises:
        FileNotFoundError: a file does not exist.
        InputError: a file is of another kind or broken, they are not of the same samples, or two scenes have the same
            name.
    """
    if workers < 1:
        raise InputError(f'workers must be at least 1, got {workers}')
    submission = read_submission(results, DETECTIONS)
    scenes = _tokens_by_scene(load_infos(infos)['data_list'])
    _require_same_samples(set(submission.results), {token for frames in scenes.values() for _, token in frames}, infos)
    jobs: list[Scene] = [
        ([time for time, _ in frames], [submission.results[token] for _, token in frames])
        for frames in scenes.values()
    ]
    tracked: dict[str, list[dict]] = {}
    progress = tqdm(_track(jobs, workers), total=len(jobs), desc='tracks', unit='scene')
    for (name, frames), numbers in zip(scenes.items(), progress, strict=True):
        for (_, token), of_frame in zip(frames, numbers, strict=True):
            entries = zip(submission.results[token], of_frame, strict=True)
            tracked[token] = [
                _tracked(entry, f'{name}{SEPARATOR}{number}') for entry, number in entries if number is not None
            ]
    return Submission(submission.meta, tracked)


def _tokens_by_scene(entries: list[dict]) -> dict[str, list[tuple[float, str]]]:
    """Return times and tokens of the samples of each scene in time order, by the scene's name.

    Raises:
        InputError: two scenes have the same name.
    """
    scenes: dict[str, list[tuple[float, str]]] = {}
    tokens: dict[str, str] = {}
    for entry in entries:
        name, token = entry['scene_name'], entry['scene_token']
        if tokens.setdefault(name, token) != token:
            raise InputError(
                f'two scenes of the infos are named {name}, with tokens {tokens[name]} and {token}: names are a part '
                'of the ids of tracks, so give every scene its own'
            )
        scenes.setdefault(name, []).append((entry['timestamp'], entry['token']))
    return {name: sorted(frames) for name, frames in scenes.items()}


def _require_same_samples(given: set[str], expected: set[str], infos: str | Path) -> None:
    """Refuse results that have other samples than the infos."""
    missing, extra = sorted(expected - given), sorted(given - expected)
    if missing or extra:
        first = f'{infos} has {missing[0]}' if missing else f'the results have {extra[0]}'
        raise InputError(
            f'the results lack {len(missing)} of the {len(expected)} samples in {infos} and have {len(extra)} others '
            f'(first: {first}): give the infos on which the results were made'
        )


def _track(jobs: list[Scene], workers: int) -> Iterable[list[list[int | None]]]:
    """Yield the numbers of each scene's tracks, in the order of the scenes."""
    if workers == 1 or len(jobs) < 2:
        yield from (track_scene(*job) for job in jobs)
        return
    times, frames = zip(*jobs, strict=True)
    with concurrent.futures.ProcessPoolExecutor(min(workers, len(jobs))) as pool:
        yield from pool.map(track_scene, times, frames)


def _tracked(entry: dict, name: str) -> dict:
    """Return a box of detections as one of tracks."""
    kept = {key: entry[key] for key in ('sample_token', 'translation', 'size', 'rotation', 'velocity')}
    return {
        **kept,
        'tracking_id': name,
        'tracking_name': entry['detection_name'],
        'tracking_score': entry['detection_score'],
    }
