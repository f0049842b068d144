"""The devkit's detection metric as an MMEngine metric."""
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mmdet3d.registry import METRICS
from mmengine.dist import all_gather_object, broadcast_object_list, is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from .devkit_evaluation import evaluate_results
from .report import metric_values, metrics_table
from .results import detections_to_results, write_results


@METRICS.register_module()
class NuScenesDevkitMetric(BaseMetric):
    """Collects detections, writes a submission and has the devkit score it.

    Detections of all processes are merged by sample token, so the score does not depend on their number.

    Args:
        data_root: nuScenes dataroot.
        version: e.g. v1.0-trainval.
        ann_file: info file of the dataset that is evaluated, relative to ``data_root`` or absolute; if it covers
            part of the split, its samples are scored.
        split: devkit split; by default the version's validation (or test) split.
        results_path: where the submission goes, beside it ``metrics_summary.json``; None keeps neither.
        format_only: write the submission and do not score it.
    """

    default_prefix = 'nuscenes'

    def __init__(self, data_root: str, version: str, ann_file: str, split: str | None = None,
                 results_path: str | None = None, format_only: bool = False) -> None:
        super().__init__()
        if format_only and results_path is None:
            raise ValueError('format_only needs results_path: nothing else is left of the detections')
        self.data_root = data_root
        self.version = version
        self.ann_file = ann_file if Path(ann_file).is_absolute() else str(Path(data_root, ann_file))
        self.split = split
        self.results_path = results_path
        self.format_only = format_only

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep a batch's detections as submission entries."""
        for sample in data_samples:
            entries = detections_to_results(sample['pred_instances_3d'], sample, self.dataset_meta['classes'])
            self.results.append((sample['sample_idx'], entries))

    def evaluate(self, size: int) -> dict[str, float]:
        """Merge over processes by token and score; all processes return the same numbers."""
        merged = {token: entries for shard in all_gather_object(self.results) for token, entries in shard}
        self.results.clear()
        metrics = [self.compute_metrics(merged) if is_main_process() else None]
        broadcast_object_list(metrics)
        return {f'{self.prefix}/{key}': value for key, value in metrics[0].items()}

    def compute_metrics(self, results: dict[str, list[dict]]) -> dict[str, float]:
        """Write and score a submission, sample token -> entries."""
        with tempfile.TemporaryDirectory() as temporary:
            path = str(Path(temporary, 'results_nusc.json')) if self.results_path is None else self.results_path
            write_results(results, path)
            if self.format_only:
                print_log(f'results written to {path}', logger='current')
                return {}
            summary = evaluate_results(path, self.data_root, self.version, self.split, self.ann_file)
        print_log('\n' + metrics_table(summary), logger='current')
        return metric_values(summary)
