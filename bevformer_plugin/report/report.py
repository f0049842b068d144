"""A report of one or more submissions: computed, drawn and put into one page."""

from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from bevformer_plugin.datasets.infos import open_tables
from bevformer_plugin.evaluation import DETECTIONS, TRACKS, load_results
from bevformer_plugin.evaluation.scored_boxes import load_scored_boxes

from .analysis import RunAnalysis, analyse_runs, run_names
from .blocks import View, count_text, number
from .causes import budget_part, confusion_part
from .classes import class_part
from .comparison import comparison_view, reading
from .frame_part import BEST, WORST, frame_part
from .frame_pictures import KeyframePictures
from .headline import HIGHER_IS_BETTER, headline_part
from .page import render_page
from .reliability_part import reliability_part
from .slice_part import slice_part
from .track_part import TrackAnalysis, track_part

PICTURE_BYTES = 1_600_000  # of all pictures together, which base64 makes a third longer
TABLE_COLUMNS = ('NDS', 'mAP', 'mATE', 'mASE', 'mAOE', 'mAVE', 'mAAE')


def analyse_submissions(
    results: Sequence[str | Path],
    root: str,
    version: str,
    split: str | None = None,
    infos: str | None = None,
    true_boxes: str = 'points',
) -> list[RunAnalysis]:
    """Load submissions of the same samples and compute all that a report shows; see :func:`load_scored_boxes`.

    Raises:
        FileNotFoundError: a file or folder is missing.
        InputError: see :func:`load_scored_boxes`; or two submissions are one file.
    """
    names = run_names(results)
    return analyse_runs(load_scored_boxes(results, root, version, split, infos, true_boxes), names)


def write_page(runs: Sequence[RunAnalysis], root: str, version: str, tracks: TrackAnalysis | None = None) -> str:
    """Draw everything and return the page.

    Args:
        runs: one or more, the first of which the others are compared with.
        root: nuScenes dataroot, below which the images of keyframes lie.
        version: nuScenes version.
        tracks: made of the first run; None shows none.

    Raises:
        InputError: an image is broken.
    """
    pictures = KeyframePictures(open_tables(root, version))
    limit = PICTURE_BYTES // ((WORST + BEST) * len(runs))
    views = [
        _run_view(run, f'run-{number}', pictures, limit, None if number else tracks)
        for number, run in enumerate(tqdm(runs, desc='pictures and charts', unit='run'))
    ]
    views += [comparison_view(runs[0], run, f'difference-{number}') for number, run in enumerate(runs[1:], start=1)]
    keyframes = runs[0].boxes.keyframes
    title = f'{" and ".join(run.name for run in runs)} on {runs[0].boxes.split}'
    lead = (
        f'{version}: {count_text(len(keyframes.tokens))} keyframes in {len(keyframes.scene_names)} scenes, '
        f'{count_text(len(runs[0].boxes.truth))} true boxes.'
    )
    return render_page(views, title, lead, 'Scores are those of the nuScenes devkit, detection_cvpr_2019.')


def terminal_table(runs: Sequence[RunAnalysis]) -> str:
    """Return the scores of the runs as a short table, and what differs from the first by more than noise."""
    width = max(len(run.name) for run in runs)
    lines = [' ' * width + ''.join(f'{name:>8}' for name in TABLE_COLUMNS)]
    for run in runs:
        values = run.scores.headline()
        lines.append(f'{run.name:<{width}}' + ''.join(f'{values[name]:8.4f}' for name in TABLE_COLUMNS))
    for run in runs:
        largest = max(run.budget.shares, key=lambda share: share.nds_gain)
        lines.append(f'{run.name}: most NDS is lost by {largest.cause} (mended alone: {largest.nds_gain:+.3f})')
    for run in runs[1:]:
        assert run.difference is not None, 'a run other than the first has a difference'
        for name in HIGHER_IS_BETTER:
            difference = run.difference.headline[name]
            words = reading(difference, run.difference.scenes, higher_is_better=True)[0]
            lines.append(
                f'{run.name} minus {runs[0].name}: {name} {number(difference.value, 4, True)} '
                f'({number(difference.low, 4, True)} to {number(difference.high, 4, True)}), {words}'
            )
    return '\n'.join(lines)


def _run_view(
    run: RunAnalysis, key: str, pictures: KeyframePictures, limit: int, tracks: TrackAnalysis | None
) -> View:
    drawn, kind = (load_results(run.boxes.path), DETECTIONS) if tracks is None else (tracks.entries, TRACKS)
    parts = (
        headline_part(run),
        class_part(run),
        slice_part(run),
        budget_part(run),
        confusion_part(run),
        reliability_part(run),
        *(() if tracks is None else (track_part(tracks),)),
        frame_part(run, key, pictures, drawn, kind, limit),
    )
    return View(key, run.name, run.name, parts)
