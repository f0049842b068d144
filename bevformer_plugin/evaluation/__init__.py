"""Results in nuScenes format, the devkit's metric, the IoU of maps, and checks on the scores."""

from .devkit_evaluation import evaluate_results
from .map_counts import HEADLINE, MapCounts
from .map_metric import SUMMARY, MapMetric, missing_maps, read_map, read_map_protocol, write_map
from .nuscenes_devkit_metric import NuScenesDevkitMetric
from .report import box_convention_warning, comparison_table, metric_values, metrics_table, read_summary
from .results import detections_to_results, load_results, refuse_existing, refuse_unwritable, write_results

__all__ = [
    'HEADLINE',
    'SUMMARY',
    'MapCounts',
    'MapMetric',
    'NuScenesDevkitMetric',
    'box_convention_warning',
    'comparison_table',
    'detections_to_results',
    'evaluate_results',
    'load_results',
    'metric_values',
    'metrics_table',
    'missing_maps',
    'read_map',
    'read_map_protocol',
    'read_summary',
    'refuse_existing',
    'refuse_unwritable',
    'write_map',
    'write_results',
]
