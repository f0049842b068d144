"""Results in nuScenes format, the devkit's metrics, the IoU of maps, checks on the scores, and why they are so."""

from .bootstrap import Bootstrap, Interval, bootstrap_scores
from .confusion import Confusion, best_thresholds, class_confusion
from .detection_scores import ClassCurves, DetectionScores, class_curves, detection_scores
from .devkit_evaluation import evaluate_results
from .error_budget import CAUSES, CauseShare, ErrorBudget, error_budget
from .frame_scores import FrameScore, frame_scores
from .map_counts import HEADLINE, MapCounts
from .map_metric import SUMMARY, MapMetric, drop_maps, missing_maps, read_map, read_map_protocol, write_map
from .matching import DISTANCES, ERRORS, Matches, match_boxes
from .nuscenes_devkit_metric import NuScenesDevkitMetric
from .reliability import Reliability, score_reliability
from .report import (
    MEAN_ERRORS,
    box_convention_warning,
    comparison_table,
    metric_values,
    metrics_table,
    read_summary,
)
from .results import (
    DETECTIONS,
    TRACKS,
    Submission,
    SubmissionKind,
    detections_to_results,
    load_results,
    load_tracks,
    read_submission,
    refuse_existing,
    write_results,
)
from .run_record import RunRecord, read_run_record, record_path, write_run_record
from .scored_boxes import BoxTable, Keyframes, ScoredBoxes, TrueBoxTable, load_scored_boxes
from .slices import Slice, Slicing, slicings
from .tracking_metric import TRACKING_SCORES, TRACKING_SUMMARY, evaluate_tracks, tracking_table

__all__ = [
    'CAUSES',
    'DETECTIONS',
    'DISTANCES',
    'ERRORS',
    'HEADLINE',
    'MEAN_ERRORS',
    'SUMMARY',
    'TRACKING_SCORES',
    'TRACKING_SUMMARY',
    'TRACKS',
    'Bootstrap',
    'BoxTable',
    'CauseShare',
    'ClassCurves',
    'Confusion',
    'DetectionScores',
    'ErrorBudget',
    'FrameScore',
    'Interval',
    'Keyframes',
    'MapCounts',
    'MapMetric',
    'Matches',
    'NuScenesDevkitMetric',
    'Reliability',
    'RunRecord',
    'ScoredBoxes',
    'Slice',
    'Slicing',
    'Submission',
    'SubmissionKind',
    'TrueBoxTable',
    'best_thresholds',
    'bootstrap_scores',
    'box_convention_warning',
    'class_confusion',
    'class_curves',
    'comparison_table',
    'detection_scores',
    'detections_to_results',
    'drop_maps',
    'error_budget',
    'evaluate_results',
    'evaluate_tracks',
    'frame_scores',
    'load_results',
    'load_scored_boxes',
    'load_tracks',
    'match_boxes',
    'metric_values',
    'metrics_table',
    'missing_maps',
    'read_map',
    'read_map_protocol',
    'read_run_record',
    'read_submission',
    'read_summary',
    'record_path',
    'refuse_existing',
    'score_reliability',
    'slicings',
    'tracking_table',
    'write_map',
    'write_results',
    'write_run_record',
]
