"""All that a page shows of the runs, computed with a progress bar."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from bevformer_plugin.errors import InputError
from bevformer_plugin.evaluation import RunRecord, read_run_record
from bevformer_plugin.evaluation.bootstrap import Bootstrap, bootstrap_scores
from bevformer_plugin.evaluation.confusion import Confusion, class_confusion
from bevformer_plugin.evaluation.detection_scores import ClassCurves, DetectionScores, class_curves, detection_scores
from bevformer_plugin.evaluation.error_budget import ErrorBudget, error_budget
from bevformer_plugin.evaluation.frame_scores import FrameScore, frame_scores
from bevformer_plugin.evaluation.matching import match_boxes
from bevformer_plugin.evaluation.reliability import Reliability, score_reliability
from bevformer_plugin.evaluation.scored_boxes import ScoredBoxes
from bevformer_plugin.evaluation.slices import Slicing, slicings

USUAL_NAME = 'results_nusc'  # of a submission's file


@dataclass(frozen=True)
class RunAnalysis:
    """What is known of one run.

    Attributes:
        name: short, other than that of every other run.
        record: how the submission was made, None if nothing is recorded.
        boxes: submission and truth.
        scores: the devkit's.
        curves: of each class.
        bootstrap: intervals of the scores.
        difference: differences of the scores to the first run, with intervals; None for the first.
        slices: scores of parts of the boxes.
        budget: causes of lost NDS.
        confusion: which classes are taken for which.
        reliability: whether scores say how often boxes are right; of all classes, then of each.
        frames: the keyframes with true boxes, from the worst to the best.
    """

    name: str
    record: RunRecord | None
    boxes: ScoredBoxes
    scores: DetectionScores
    curves: list[ClassCurves]
    bootstrap: Bootstrap
    difference: Bootstrap | None
    slices: list[Slicing]
    budget: ErrorBudget
    confusion: Confusion
    reliability: list[Reliability]
    frames: list[FrameScore]


def analyse_runs(runs: Sequence[ScoredBoxes], names: Sequence[str]) -> list[RunAnalysis]:
    """Compute all that the page shows of submissions of the same samples; the first is what others are compared to.

    Args:
        runs: the submissions.
        names: of each, see :func:`run_names`.

    Raises:
        InputError: a record beside a submission cannot be read.
    """
    records = [read_run_record(run.path) for run in runs]
    with tqdm(total=6 * len(runs), desc='analysis', unit='step') as progress:

        def done(what: str) -> None:
            progress.set_postfix_str(what, refresh=False)
            progress.update()

        matches = []
        for run in runs:
            matches.append(match_boxes(run))
            done('matching')
        parts = []
        for run, match in zip(runs, matches, strict=True):
            scores, curves = detection_scores(run, match), class_curves(run, match)
            done('scores')
            slices = slicings(run, match, progress=False)
            done('slices')
            budget = error_budget(run, match)
            done('error budget')
            others = class_confusion(run, match), score_reliability(run, match), frame_scores(run, match)
            done('confusion, reliability, frames')
            parts.append((scores, curves, slices, budget, *others))
        bootstraps, differences = bootstrap_scores(runs, matches, progress=False)
        for _ in runs:
            done('intervals')
    return [
        RunAnalysis(name, record, run, scores, curves, bootstrap, difference, slices, budget, *others)
        for name, record, run, (scores, curves, slices, budget, *others), bootstrap, difference in zip(
            names, records, runs, parts, bootstraps, [None, *differences], strict=True
        )
    ]


def run_names(paths: Sequence[str | Path]) -> list[str]:
    """Name submissions by the fewest last parts of their paths that tell them apart.

    The end ``results_nusc`` of a file's name, which says nothing of a run, is left out.

    Raises:
        InputError: two paths are one file.
    """
    resolved = [Path(path).resolve() for path in paths]
    repeated = [path for path in resolved if resolved.count(path) > 1]
    if repeated:
        raise InputError(f'{repeated[0]} is given twice: a run compared with itself says nothing')
    stems = [path.stem.removesuffix(USUAL_NAME).rstrip('_-.') for path in resolved]
    parts = [(*path.parts[1:-1], *filter(None, (stem,))) for path, stem in zip(resolved, stems, strict=True)]
    for count in range(1, max(map(len, parts)) + 1):
        names = ['/'.join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in resolved]
