"""Results in nuScenes format, the devkit's metric, the IoU of maps, and checks on the scores."""

from .devkit_evaluation import evaluate_results
from .map_counts import HEADLINE, MapCounts
from .map_metric import SUMMARY, MapMetric, read_map, read_map_protocol
from .nuscenes_devkit_metric import NuScenesDevkitMetric
from .report import box_convention_warning, comparison_table, metric_values, metrics_table, read_summary
from .results import detections_to_results, load_results, refuse_existing, refuse_unwritable, write_results
from .run_record import RunRecord, file_sha256, read_run_record, record_path, write_run_record

__all__ = [
    'HEADLINE',
    'SUMMARY',
    'MapCounts',
    'MapMetric',
    'NuScenesDevkitMetric',
    'RunRecord',
    'box_convention_warning',
    'comparison_table',
    'detections_to_results',
    'evaluate_results',
    'file_sha256',
    'load_results',
    'metric_values',
    'metrics_table',
    'read_map',
    'read_map_protocol',
    'read_run_record',
    'read_summary',
    'record_path',
    'refuse_existing',
    'refuse_unwritable',
    'write_results',
    'write_run_record',
]
