"""How far scores are chance: scores of scenes drawn with replacement, for one run and for differences of runs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .matching import Matches
from .scored_boxes import ScoredBoxes


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
        raise NotImplementedError


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
    raise NotImplementedError
