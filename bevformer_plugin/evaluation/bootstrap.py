"""Intervals of scores by a bootstrap over scenes, for one run and for the differences between runs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from nuscenes.eval.detection.constants import DETECTION_NAMES
from tqdm import tqdm

from bevformer_plugin.errors import InputError

from .detection_scores import HEADLINE_NAMES, DetectionScores, class_records, score_class, score_records
from .matching import Matches
from .scored_boxes import ScoredBoxes

COVERAGE = 0.95  # share of the draws that an interval holds


@dataclass(frozen=True)
class Interval:
    """A figure with the interval that holds 95 % of its values over the draws.

    Attributes:
        value: over all scenes.
        low, high: the 2.5 and 97.5 % quantiles over the draws; both NaN if there is only one scene.
    """

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside of the interval, which of a difference says that it is more than noise."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Bootstrap:
    """Figures of one run, or differences of two, with their intervals.

    Attributes:
        draws: number of draws.
        seed: of the random draws.
        scenes: number of scenes that each draw takes, of as many.
        headline: NDS, mAP and the five mean errors by name, see :meth:`DetectionScores.headline`.
        class_aps: AP of each class that has true boxes, by name.
    """

    draws: int
    seed: int
    scenes: int
    headline: dict[str, Interval]
    class_aps: dict[str, Interval]


def bootstrap_scores(
    runs: Sequence[ScoredBoxes], matches: Sequence[Matches], draws: int = 1000, seed: int = 0, progress: bool = True
) -> tuple[list[Bootstrap], list[Bootstrap]]:
    """Draw scenes with replacement, the same for all runs, and score each draw as the devkit would.

    A class without a true box in the drawn scenes keeps its values over all scenes.

    Args:
        runs: one or more submissions of the same samples.
        matches: of each run.
        draws: how often.
        seed: of the draws; the same seed gives the same intervals.
        progress: show a progress bar.

    Returns:
        The intervals of each run, and those of the differences of each run to the first (one less than there are
        runs), from the same draws.

    Raises:
        InputError: the runs are of other samples, or ``draws`` is not positive.
    """
    if draws < 1:
        raise InputError(f'a bootstrap takes at least one draw, not {draws}')
    _refuse_other_samples(runs)
    names = sorted(runs[0].keyframes.scene_names)
    drawn = np.random.default_rng(seed).integers(len(names), size=(draws, len(names)))
    weights = np.stack([np.bincount(row, minlength=len(names)) for row in drawn])
    distinct, which = np.unique(weights, axis=0, return_inverse=True)  # of few scenes many draws are equal
    values, drawn_values = [], []
    with tqdm(total=len(runs) * len(distinct), desc='bootstrap', disable=not progress) as bar:
        for run, its in zip(runs, matches, strict=True):
            resampling = _Resampling(run, its, names)
            values.append(_figures(resampling.scores))
            rows = []
            for row in distinct:
                rows.append(_figures(resampling.scores_of(row)))
                bar.update()
            drawn_values.append(np.stack(rows)[which.ravel()])
    present = sorted(set(runs[0].truth.labels.tolist()))

    def summary(of_all: np.ndarray, of_draws: np.ndarray) -> Bootstrap:
        return _summary(of_all, of_draws, present, seed, len(names))

    return [summary(*pair) for pair in zip(values, drawn_values, strict=True)], [
        summary(value - values[0], of_draws - drawn_values[0])
        for value, of_draws in zip(values[1:], drawn_values[1:], strict=True)
    ]


class _Resampling:
    """Scores of one run with its scenes taken any number of times.

    Args:
        run: the submission.
        matches: its matches.
        names: scenes in the order of the weights.
    """

    def __init__(self, run: ScoredBoxes, matches: Matches, names: list[str]) -> None:
        scene_of_frame = np.array([names.index(name) for name in run.keyframes.scene_names])[run.keyframes.scenes]
        scenes = scene_of_frame[run.predictions.frames]
        true_scenes = scene_of_frame[run.truth.frames]
        labels = range(len(DETECTION_NAMES))
        self.records = class_records(run.truth, run.predictions, matches)
        self.scores = score_records(self.records)
        self.scenes = [scenes[matches.order][run.predictions.labels[matches.order] == label] for label in labels]
        self.positives = [
            np.bincount(true_scenes[run.truth.labels == label], minlength=len(names)) for label in labels
        ]

    def scores_of(self, weights: np.ndarray) -> DetectionScores:
        """Score the scenes as if each were there as often as its weight (scenes,) says."""
        aps, errors = self.scores.aps.copy(), self.scores.errors.copy()
        for label, (name, record) in enumerate(zip(DETECTION_NAMES, self.records, strict=True)):
            positives = int(self.positives[label] @ weights)
            if positives:
                index = np.repeat(np.arange(len(record.scores)), weights[self.scenes[label]])
                aps[label], errors[label] = score_class(name, record.take(index, positives))
        return DetectionScores(aps, errors)


def _figures(scores: DetectionScores) -> np.ndarray:
    """Return the figures of the headline and the AP of the ten classes in one array (17,)."""
    return np.concatenate([list(scores.headline().values()), scores.class_aps])


def _summary(values: np.ndarray, of_draws: np.ndarray, present: list[int], seed: int, scenes: int) -> Bootstrap:
    """Turn figures into intervals.

    Args:
        values: (17,) figures over all scenes, see :func:`_figures`.
        of_draws: (draws, 17).
        present: labels of the classes with true boxes.
        seed: of the draws.
        scenes: number of scenes.
    """
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(of_draws, [tail, 1 - tail], axis=0) if scenes > 1 else np.full((2, len(values)), np.nan)
    intervals = [Interval(*triple) for triple in zip(values.tolist(), low.tolist(), high.tolist(), strict=True)]
    return Bootstrap(
        draws=len(of_draws),
        seed=seed,
        scenes=scenes,
        headline=dict(zip(HEADLINE_NAMES, intervals[: len(HEADLINE_NAMES)], strict=True)),
        class_aps={DETECTION_NAMES[label]: intervals[len(HEADLINE_NAMES) + label] for label in present},
    )


def _refuse_other_samples(runs: Sequence[ScoredBoxes]) -> None:
    """Refuse to compare runs of other samples.

    Raises:
        InputError: naming two runs.
    """
    first = set(runs[0].keyframes.tokens)
    for run in runs[1:]:
        other = set(run.keyframes.tokens)
        if other != first:
            raise InputError(
                f'{runs[0].path} and {run.path} are of other samples ({len(first - other)} and {len(other - first)} '
                'are in one of them only): runs are compared over the same ones'
            )
