"""The devkit's tracking evaluation on given samples; it imports motmetrics, and thus is imported when needed."""

from collections import defaultdict

import numpy as np
from nuscenes import NuScenes
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.common.loaders import load_prediction_of_sample_tokens
from nuscenes.eval.tracking.data_classes import TrackingBox, TrackingConfig
from nuscenes.eval.tracking.evaluate import TrackingEval
from nuscenes.eval.tracking.loaders import interpolate_tracks
from nuscenes.eval.tracking.utils import category_to_tracking_name

from .devkit_boxes import boxes_within_range, load_truth, require_true_boxes

Tracks = dict[str, dict[int, list[TrackingBox]]]


class SampleTrackingEval(TrackingEval):
    """The devkit's tracking evaluation of the samples of a submission, of whichever split.

    The devkit finds the scenes of a split by its name and knows only nuScenes' own and those of ``splits.json``; here
    scenes are those of the samples. Besides, a submission may be without boxes, and other rules than 'points' may
    decide which true boxes count. In all other cases the numbers are the devkit's, to the digit.

    Args:
        nusc: tables with the samples and their annotations.
        result_path: the submission.
        sample_tokens: the samples to score, all of which the submission has.
        output_dir: folder that the devkit would draw to.
        true_boxes: rule of :func:`counted_boxes`.

    Raises:
        InputError: an annotation is broken, or no true box counts.
    """

    def __init__(
        self, nusc: NuScenes, result_path: str, sample_tokens: list[str], output_dir: str, true_boxes: str
    ) -> None:
        config = config_factory('tracking_nips_2019')
        assert isinstance(config, TrackingConfig)
        self.cfg, self.output_dir, self.verbose, self.render_classes = config, output_dir, False, []
        truth, _ = load_truth(nusc, sample_tokens, TrackingBox, category_to_tracking_name, true_boxes)
        predictions, self.meta = load_prediction_of_sample_tokens(
            result_path, int(config.max_boxes_per_sample), TrackingBox, sample_tokens=sample_tokens
        )
        self.pred_boxes, self.gt_boxes = (
            boxes_within_range(nusc, boxes, config.class_range) for boxes in (predictions, truth)
        )
        require_true_boxes(self.gt_boxes, true_boxes)
        self.tracks_gt = _by_scene_and_time(self.gt_boxes, nusc)
        self.tracks_pred = _by_scene_and_time(self.pred_boxes, nusc)
        for frames in self.tracks_pred.values():
            _average_scores(frames)
        for frames in (*self.tracks_gt.values(), *self.tracks_pred.values()):
            interpolate_tracks(defaultdict(list, frames))  # adds to the lists in the frames


def _by_scene_and_time(boxes: EvalBoxes, nusc: NuScenes) -> Tracks:
    """Group boxes by scene token and timestamp in microseconds, in time order; samples without boxes count."""
    tracks: Tracks = defaultdict(dict)
    for token in boxes.sample_tokens:
        sample = nusc.get('sample', token)
        tracks[sample['scene_token']][sample['timestamp']] = boxes[token]
    return {scene: dict(sorted(frames.items())) for scene, frames in tracks.items()}


def _average_scores(frames: dict[int, list[TrackingBox]]) -> None:
    """Replace the scores of boxes by the mean over their track, as the devkit does before it fills gaps."""
    scores: dict[str, list[float]] = defaultdict(list)
    boxes = [box for of_frame in frames.values() for box in of_frame]
    for box in boxes:
        scores[box.tracking_id].append(box.tracking_score)
    means = {name: float(np.mean(of_track)) for name, of_track in scores.items()}
    for box in boxes:
        box.tracking_score = means[box.tracking_id]
