"""Results in nuScenes format, the devkit's metrics, the IoU of maps, and checks on the scores."""

from .devkit_evaluation import evaluate_results
from .map_counts import HEADLINE, MapCounts
from .map_metric import SUMMARY, MapMetric, read_map, read_map_protocol
from .nuscenes_devkit_metric import NuScenesDevkitMetric
from .report import box_convention_warning, comparison_table, metric_values, metrics_table, read_summary
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
    refuse_unwritable,
    write_results,
)
from .tracking_metric import TRACKING_SUMMARY, evaluate_tracks, tracking_table

__all__ = [
    'DETECTIONS',
    'HEADLINE',
    'SUMMARY',
    'TRACKING_SUMMARY',
    'TRACKS',
    'MapCounts',
    'MapMetric',
    'NuScenesDevkitMetric',
    'Submission',
    'SubmissionKind',
    'box_convention_warning',
    'comparison_table',
    'detections_to_results',
    'evaluate_results',
    'evaluate_tracks',
    'load_results',
    'load_tracks',
    'metric_values',
    'metrics_table',
    'read_map',
    'read_map_protocol',
    'read_submission',
    'read_summary',
    'refuse_existing',
    'refuse_unwritable',
    'tracking_table',
    'write_results',
]
