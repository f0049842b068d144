"""The devkit's detection metric as an MMEngine metric."""

import tempfile
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path

from mmdet3d.registry import METRICS
from mmengine.dist import broadcast_object_list, gather_object
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from nuscenes.eval.detection.constants import DETECTION_NAMES

from bevformer_plugin.datasets import NuScenesTemporalDataset
from bevformer_plugin.datasets.infos import check_rule, check_tables, count_true_boxes, load_infos, require_matching
from bevformer_plugin.datasets.setting_types import check_path, check_switch, check_text
from bevformer_plugin.errors import InputError

from .devkit_evaluation import SCORES, evaluate_results, refuse_without_annotations, scenes_of, split_to_evaluate
from .report import metric_values, metrics_table
from .results import check_results, detections_to_results, write_results


@METRICS.register_module()
class NuScenesDevkitMetric(BaseMetric):
    """Collects detections, writes a submission and has the devkit score it.

    Detections of all processes are merged by sample token, so the score does not depend on the number of processes; a
    process may have no detections.

    Args:
        data_root: nuScenes dataroot.
        version: nuScenes version, such as v1.0-trainval.
        ann_file: info file of the dataset that is evaluated, relative to ``data_root`` or absolute; if it covers a
            part of the split, the samples of that part are scored.
        split: split of the devkit or of your own data, see :func:`evaluate_results`; by default that of ``ann_file``.
        results_path: file for the submission, beside which ``metrics_summary.json`` is written; None keeps neither.
        format_only: write the submission and do not score it.
        true_boxes: which annotated objects count, the rule of the dataset that is evaluated.

    Raises:
        InputError: a setting of another type, ``format_only`` without ``results_path``, or an unknown rule
            ``true_boxes``.
    """

    default_prefix = 'nuscenes'

    def __init__(
        self,
        data_root: str,
        version: str,
        ann_file: str,
        split: str | None = None,
        results_path: str | None = None,
        format_only: bool = False,
        true_boxes: str = 'points',
    ) -> None:
        super().__init__()
        check_path('data_root', data_root)
        check_text('version', version)
        check_path('ann_file', ann_file)
        if split is not None:
            check_text('split', split)
        if results_path is not None:
            check_path('results_path', results_path)
        check_switch('format_only', format_only)
        check_rule(true_boxes)
        if format_only and results_path is None:
            raise InputError('format_only needs results_path: nothing else is left of the detections')
        self.data_root = data_root
        self.version = version
        self.ann_file = ann_file if Path(ann_file).is_absolute() else str(Path(data_root, ann_file))
        self.split = split
        self.results_path = results_path
        self.format_only = format_only
        self.true_boxes = true_boxes

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep a batch's detections as submission entries."""
        assert self.dataset_meta is not None, 'the evaluator sets it before the first batch'
        for sample in data_samples:
            entries = detections_to_results(sample['pred_instances_3d'], sample, self.dataset_meta['classes'])
            self.results.append((sample['sample_idx'], entries))

    def check_dataset(self, dataset: object) -> None:
        """Refuse a dataset whose detections could not be scored, before hours are spent on them.

        Raises:
            FileNotFoundError: the tables or the infos are missing.
            InputError: the dataset is no :class:`NuScenesTemporalDataset` or one for training; version, split,
                samples, classes or the rule of true boxes do not match; the tables hold no annotations, or no true
                box counts.
        """
        if not isinstance(dataset, NuScenesTemporalDataset):
            raise InputError(
                f'NuScenesDevkitMetric scores detections on a NuScenesTemporalDataset, not on a '
                f'{type(dataset).__name__}: give the dataloader such a dataset, or take another metric'
            )
        if not self.format_only:
            self._check_tables()
        infos = load_infos(self.ann_file, root=self.data_root)
        require_matching(infos['metainfo'], version=self.version)
        if dataset.metainfo['version'] != self.version:
            raise InputError(
                f'the dataset is of nuScenes {dataset.metainfo["version"]}, the evaluator of {self.version}: give '
                'both the same version'
            )
        unknown = sorted(set(dataset.metainfo['classes']) - set(DETECTION_NAMES))
        if unknown:
            raise InputError(f'the dataset has classes that the devkit does not score: {", ".join(unknown)}')
        if not dataset.test_mode:
            raise InputError('the dataset to evaluate on is one for training: set its test_mode=True')
        if dataset.true_boxes != self.true_boxes:
            raise InputError(
                f'the dataset counts true boxes by {dataset.true_boxes!r}, the evaluator by {self.true_boxes!r}: give '
                'both the same true_boxes'
            )
        self._check_samples(infos['data_list'], dataset)
        if not self.format_only:
            self._check_truth(infos)

    def _check_tables(self) -> None:
        """Refuse a dataroot whose tables cannot be scored against."""
        if not Path(self.data_root, self.version).is_dir():
            raise FileNotFoundError(
                f'the evaluator needs nuScenes tables at {Path(self.data_root, self.version)}; '
                'set its data_root and version'
            )
        check_tables(self.data_root, self.version)
        refuse_without_annotations(self.data_root, self.version)

    def _check_samples(self, entries: list[dict], dataset: NuScenesTemporalDataset) -> None:
        """Refuse a dataset whose samples are not those of the info file's entries."""
        scored, of_dataset = {entry['token'] for entry in entries}, set(dataset.sample_tokens())
        if scored != of_dataset:
            raise InputError(
                f'the evaluator scores the {len(scored)} samples of {self.ann_file}, but the dataset has '
                f'{len(of_dataset)} and {len(scored & of_dataset)} are in both: give both the same ann_file'
            )

    def _check_truth(self, infos: dict) -> None:
        """Refuse infos that are of another split or leave no true box to score against."""
        split = split_to_evaluate(self.split, self.version, self.data_root, infos['metainfo'])
        scenes_of(split, self.version, self.data_root, infos['metainfo'])
        counted, total = count_true_boxes(infos['data_list'], self.true_boxes)
        if not counted:
            raise InputError(
                f'{self.ann_file} has {total} boxes, so there is nothing to score against: write the submission only '
                '(--format-only, format_only=True)'
            )

    def evaluate(self, size: int) -> dict[str, float]:
        """Merge the detections of all processes and score them.

        All processes return the same numbers, or raise the same error.
        """
        shards = gather_object(self.results)  # None on all processes but the main one
        self.results = []
        outcomes = [{} if shards is None else self._score(shards)]
        broadcast_object_list(outcomes)  # now all processes have the outcome of the main one
        outcome = outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        return {f'{self.prefix}/{key}': value for key, value in outcome.items()}

    def _score(self, shards: list[list[tuple[str, list[dict]]]]) -> dict[str, float] | Exception:
        """Score the detections of all processes.

        An error is returned, not raised, because the other processes wait for an outcome.
        """
        # The devkit's sums and its order of equal scores follow the order of samples, so a fixed order is needed.
        merged = dict(sorted((entry for shard in shards for entry in shard), key=itemgetter(0)))
        try:
            return self.compute_metrics(merged)
        except (ValueError, OSError) as error:
            return error

    def compute_metrics(self, results: dict[str, list[dict]]) -> dict[str, float]:
        """Write a submission, sample token -> entries, and score it."""
        if self.format_only:
            check_results(results)  # which those that are scored are when they are read
        with tempfile.TemporaryDirectory() as temporary:
            path = str(Path(temporary, 'results_nusc.json')) if self.results_path is None else self.results_path
            write_results(results, path, SCORES)
            if self.format_only:
                print_log(f'results written to {path}', logger='current')
                return {}
            summary = evaluate_results(
                path,
                self.data_root,
                self.version,
                self.split,
                self.ann_file,
                true_boxes=self.true_boxes,
                classes_detected=(self.dataset_meta or {}).get('classes'),
            )
        print_log('\n' + metrics_table(summary), logger='current')
        return metric_values(summary)
