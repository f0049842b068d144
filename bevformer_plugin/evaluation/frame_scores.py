"""A score for each keyframe, to find the worst and the best."""

from dataclasses import dataclass

from .matching import Matches
from .scored_boxes import ScoredBoxes


@dataclass(frozen=True)
class FrameScore:
    """How well one keyframe is detected.

    Attributes:
        token: of the sample.
        scene: name of its scene.
        position: number of the keyframe in its scene, from 0.
        score: the devkit's AP at 2 m of this keyframe alone, the mean over the classes with true boxes in it.
        true_count: true boxes.
        found_count: true boxes matched at 2 m by a predicted box at or above its class's threshold.
        false_count: predicted boxes at or above the threshold that match nothing at 2 m.
    """

    token: str
    scene: str
    position: int
    score: float
    true_count: int
    found_count: int
    false_count: int


def frame_scores(boxes: ScoredBoxes, matches: Matches) -> list[FrameScore]:
    """Score all keyframes that have true boxes, from the worst to the best; thresholds: see `best_thresholds`."""
    raise NotImplementedError
